package hostile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// sys is a system call as no library dresses it. Pointers among args stay where
// they are until it returns.
//
//go:uintptrescapes
func sys(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// descriptor is sys for a call that gives one, which is closed at once.
//
//go:uintptrescapes
func descriptor(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	fd, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	_ = unix.Close(int(fd))
	return nil
}

// noFD is -1, which no descriptor is.
const noFD = ^uintptr(0)

// nowhere is a path that leads to nothing.
const nowhere = "/nonexistent/of-hostile"

// canOpen opens a file and closes it again, unread and unwritten.
func canOpen(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// opens is the finding of one file: not to find it is to be contained.
func opens(path string, flags int) Finding {
	err := canOpen(path, flags)
	for _, none := range []error{unix.ENOENT, unix.ENOTDIR, unix.ENXIO, unix.ENODEV, unix.EIO, unix.EISDIR, unix.EOPNOTSUPP} {
		if errors.Is(err, none) {
			return absent("%v", err)
		}
	}
	if errors.Is(err, unix.ELOOP) {
		return contained("%v", err)
	}
	return judge(err, unix.ETXTBSY, unix.EBUSY, unix.EINVAL)
}

// numbers are the names in a folder that are numbers.
func numbers(dir string) (ns []int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			ns = append(ns, n)
		}
	}
	return ns
}

// scratch is a folder that this process may write to: of its own if there is one,
// else that of everybody.
func scratch() (string, bool) {
	cwd, _ := os.Getwd()
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", cwd, "/run"} {
		if f, err := os.CreateTemp(dir, "hostile"); err == nil {
			f.Close()
			_ = os.Remove(f.Name())
			return dir, true
		}
	}
	return "", false
}

// inside makes a folder in a scratch place for what try does, and removes it.
func inside(try func(dir string) Finding) Finding {
	place, ok := scratch()
	if !ok {
		return contained("there is no place to write to")
	}
	dir, err := os.MkdirTemp(place, "hostile")
	if err != nil {
		return unclear("%v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return try(dir)
}

// existing are the paths of a list of patterns that are there, or seem to be.
func existing(patterns ...string) (paths []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(p)
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
