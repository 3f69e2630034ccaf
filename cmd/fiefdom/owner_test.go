package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// What an owner's ini runs and reads, root's check and show must not run and
// read for him.
func TestRootReadsInisAsTheirOwners(t *testing.T) {
	nettest.Root(t)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	ini := filepath.Join(dir, "tenant.ini")
	secret := filepath.Join(dir, "secret")
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, "hidden", 0o600)
	write(ini, "[uwsgi]\nenv = WHO=@(exec://id -u)\ncommand = /bin/true\n", 0o644)
	if err := os.Chown(ini, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	out, err := asFiefdom("show", ini)
	if err != nil || !strings.Contains(out, "env = WHO=12345\n") {
		t.Errorf("show: %v\n%s", err, out)
	}
	t.Setenv("FIEFDOM_TEST_SECRET", "hidden")
	write(ini, "[uwsgi]\nenv = A=$(FIEFDOM_TEST_SECRET)\nenv = B=@(exec://echo .$FIEFDOM_TEST_SECRET.)\ncommand = /bin/true\n", 0o644)
	if out, err := asFiefdom("show", ini); err != nil || strings.Contains(out, "hidden") || !strings.Contains(out, "env = B=..\n") {
		t.Errorf("show, of root's environment: %v\n%s", err, out)
	}
	write(ini, "[uwsgi]\nenv = WHAT=@("+secret+")\ncommand = /bin/true\n", 0o644)
	for _, word := range []string{"show", "check"} {
		if out, err := asFiefdom(word, ini); err == nil || strings.Contains(out, "hidden") || !strings.Contains(out, "permission denied") {
			t.Errorf("%s: %v\n%s", word, err, out)
		}
	}
}

// asFiefdom runs the test binary as fiefdom and returns all that it printed.
func asFiefdom(args ...string) (string, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{"fiefdom"}, args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
