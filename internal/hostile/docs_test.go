package hostile

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const page = "../../docs/security.md"

// The page shows the rows that are tried.
func TestTableOfThePage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(text), "\n"+Table()) {
		t.Errorf("%s does not end in the table of the rows; go run ./internal/hostile/program -table prints it", page)
	}
}

// What the page names as shown is shown by tests that there are.
func TestTestsOfThePageExist(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Fatalf("found only %d names", len(named))
	}
	out, err := exec.CommandContext(t.Context(), "grep", "-rhoE", "--include=*_test.go", "^func Test[A-Za-z0-9]+", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range named {
		if !strings.Contains(string(out), "func "+m[1]+"\n") {
			t.Errorf("there is no %s", m[1])
		}
	}
}
