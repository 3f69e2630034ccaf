package nettest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Disk is the number of a disk of this machine, MAJOR:MINOR. Without any the
// test is skipped.
func Disk(t testing.TB) string {
	t.Helper()
	all, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if b, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	NotHere(t, "there is no disk")
	return ""
}
