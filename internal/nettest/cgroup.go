package nettest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rootName begins the names of worlds' roots in cgroup trees.
const rootName = "fiefdom-world-"

// makeRoot makes a world's root in a cgroup tree, which ends with the test. It is
// locked as long as this process lives: of one that was killed, all that is left
// are its roots, which the next world takes away.
func makeRoot(t testing.TB, tree string) string {
	t.Helper()
	sweep(tree, time.Minute) // another's that is not a moment old may not be locked yet
	root, err := os.MkdirTemp(tree, rootName)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() }) // when it is removed
	t.Cleanup(func() {
		if !poll(5*time.Second, func() bool { return removeCgroup(root) == nil }) {
			t.Errorf("remove %s: %v", root, removeCgroup(root))
		}
	})
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	return root
}

// sweep removes the roots in a tree that nobody has locked.
func sweep(tree string, age time.Duration) {
	roots, _ := filepath.Glob(filepath.Join(tree, rootName+"*"))
	for _, root := range roots {
		dir, err := os.Open(root)
		if err != nil {
			continue // gone meanwhile
		}
		st, err := dir.Stat()
		if err == nil && time.Since(st.ModTime()) >= age && unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = removeCgroup(root) // one with processes stays
		}
		dir.Close()
	}
}

// removeCgroup removes a cgroup and those below it; only folders can be removed.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}
