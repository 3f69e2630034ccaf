// Package unixsock is about the files of unix sockets.
package unixsock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// RemoveStale removes the socket that somebody who is gone has left at path. A
// path with nothing is fine. Anything else there, and a socket where somebody
// listens or may do so, stays and is an error, which does not name the path.
// It never blocks on the other side.
func RemoveStale(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errors.New("something is there that is no socket; remove it, or choose another path")
	}
	if err := unlistened(path); err != nil {
		return err
	}
	return unix.Unlink(path)
}

// unlistened is nil if surely nobody has the socket at path.
func unlistened(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	case err == nil, errors.Is(err, unix.EAGAIN): // that one has no place for more now
		return errors.New("somebody else listens there; choose another path")
	}
	return fmt.Errorf("a socket is there already: %w", err)
}
