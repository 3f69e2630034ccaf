package nettest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupName begins the names of cgroups of tests.
const cgroupName = "fiefdom-tests-"

// NewCgroup makes a cgroup for a test, below one of whatever tree, and removes it
// at the test's end, when it has to be empty of processes. It is locked as long as
// this process lives: those that killed tests have left, with what runs in them,
// are ended by the next one.
func NewCgroup(t testing.TB, above string) string {
	t.Helper()
	sweep(above, time.Minute) // another's that is younger may not be locked yet
	dir, err := os.MkdirTemp(above, cgroupName)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() }) // when it is removed
	t.Cleanup(func() {
		if !poll(5*time.Second, func() bool { return removeCgroup(dir) == nil }) {
			t.Errorf("remove %s: %v", dir, removeCgroup(dir))
		}
	})
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sweep ends the cgroups of tests below another that nobody has locked.
func sweep(above string, age time.Duration) {
	all, _ := filepath.Glob(filepath.Join(above, cgroupName+"*"))
	for _, path := range all {
		dir, err := os.Open(path)
		if err != nil {
			continue // gone meanwhile
		}
		st, err := dir.Stat()
		if err == nil && time.Since(st.ModTime()) >= age && unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = killCgroup(path) // there is no such file in a v1 tree
			poll(time.Second, func() bool { return removeCgroup(path) == nil })
		}
		dir.Close()
	}
}

// killCgroup kills what runs in a cgroup of a v2 tree.
func killCgroup(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// removeCgroup removes a cgroup and those below it; only folders can be removed.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
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
