package confine

import "golang.org/x/sys/unix"

// Stderr is the standard error of a process that must not wait for whoever
// reads it, which may be an emperor that is gone: where it would, the line is
// lost.
type Stderr struct{}

// Write never fails.
func (Stderr) Write(b []byte) (int, error) {
	_, _ = unix.Write(2, b)
	return len(b), nil
}
