package exposure

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const tableHead = "| row | weight | well is | because |\n|---|---|---|---|\n"

// The page has the rows as they are. With FIEFDOM_TEST_UPDATE=1 it is written anew.
func TestThePageHasTheRows(t *testing.T) {
	const path = "../../docs/security.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&want, "| %s | %d | %s | %s |\n", r.name, r.weight, r.good, r.why)
	}
	before, rest, found := strings.Cut(string(page), tableHead)
	got, after, ends := strings.Cut(rest, "\n\n")
	if !found || !ends {
		t.Fatalf("%s has no such table: %s", path, tableHead)
	}
	if got+"\n" == want.String() {
		return
	}
	if os.Getenv("FIEFDOM_TEST_UPDATE") == "1" {
		text := before + tableHead + want.String() + "\n" + strings.TrimLeft(after, "\n")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s has other rows; FIEFDOM_TEST_UPDATE=1 writes\n%s", path, want.String())
}
