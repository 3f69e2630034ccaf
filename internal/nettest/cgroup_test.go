package nettest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a killed test has left is taken away; what somebody has, or another made, or
// has just been made, is not.
func TestSweep(t *testing.T) {
	tree := t.TempDir()
	t.Run("a world", func(t *testing.T) {
		has := NewCgroup(t, tree)
		left, others := filepath.Join(tree, cgroupName+"1", "below"), filepath.Join(tree, "others")
		for _, dir := range []string{left, others} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		there := func(dir string) bool { _, err := os.Stat(dir); return err == nil }
		if sweep(tree, time.Minute); !there(left) {
			t.Error("a root that may not be locked yet was removed")
		}
		if sweep(tree, 0); there(filepath.Dir(left)) || !there(has) || !there(others) {
			t.Errorf("left is there: %v, want no; a world's: %v, the other: %v", there(left), there(has), there(others))
		}
	})
	if left, _ := filepath.Glob(filepath.Join(tree, cgroupName+"*")); len(left) > 0 {
		t.Errorf("after the world there is %q", left)
	}
}
