package vault

import (
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxFiles bounds the descriptors under one key: as many as one message can
// carry (SCM_MAX_FD), the note aside.
const maxFiles = 252

// Files are descriptors by name. They are duplicates: whose they are of may
// close his own at any time.
type Files struct {
	names []string
	fds   []int
}

// Add adds a duplicate of a file; without a file it does nothing. Of one that is
// closed the error is os.ErrClosed.
func (f *Files) Add(name string, file *os.File) error {
	if file == nil {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	var result error
	if raw.Control(func(fd uintptr) { result = f.AddFD(name, int(fd)) }) != nil {
		return fmt.Errorf("keep %s: %w", name, os.ErrClosed)
	}
	return result
}

// AddFD is Add for a bare descriptor.
func (f *Files) AddFD(name string, fd int) error {
	if len(f.fds) == maxFiles {
		return fmt.Errorf("keep %s: more than %d descriptors under one key", name, maxFiles)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	f.names, f.fds = append(f.names, name), append(f.fds, own)
	return nil
}

// Take returns a file, the caller's from then on; nil: there is none of the name.
func (f *Files) Take(name string) *os.File {
	i := slices.Index(f.names, name)
	if i < 0 {
		return nil
	}
	file := os.NewFile(uintptr(f.fds[i]), name)
	f.names, f.fds = slices.Delete(f.names, i, i+1), slices.Delete(f.fds, i, i+1)
	return file
}

// TakeFD is Take for a bare descriptor.
func (f *Files) TakeFD(name string) (int, error) {
	i := slices.Index(f.names, name)
	if i < 0 {
		return -1, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	fd := f.fds[i]
	f.names, f.fds = slices.Delete(f.names, i, i+1), slices.Delete(f.fds, i, i+1)
	return fd, nil
}

// Close closes what nobody has taken.
func (f *Files) Close() {
	for _, fd := range f.fds {
		_ = unix.Close(fd)
	}
	f.names, f.fds = nil, nil
}
