package main

import (
	"os"
	"strings"
	"testing"
)

// The tables of the page are the command's.
func TestMigratingPage(t *testing.T) {
	const page, mark = "../../docs/migrating.md", "edit internal/migrate. -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(text), mark)
	if !ok {
		t.Fatalf("%s lacks the line before its tables", page)
	}
	want := migrationTables.Page()
	if after == want {
		return
	}
	if os.Getenv("FIEFDOM_TEST_UPDATE") != "1" {
		t.Fatalf("%s is not what the tables say; make it anew: FIEFDOM_TEST_UPDATE=1 go test ./cmd/fiefdom -run TestMigratingPage", page)
	}
	if err := os.WriteFile(page, []byte(before+mark+want), 0o644); err != nil {
		t.Fatal(err)
	}
}
