package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// RecordedRouter opens the router that is on record, if it still lives: a process
// of that pid which began at that time. Without one all is zero.
func (i *Instance) RecordedRouter() (pidfd *os.File, pid int, err error) {
	b, err := os.ReadFile(i.Path(routerRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	var began string
	if _, serr := fmt.Sscan(string(b), &pid, &began); err != nil || serr != nil {
		return nil, 0, err // a torn record: the process was not started yet
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // it is gone
	}
	if now, err := startTime(pid); err != nil || now != began {
		return nil, 0, unix.Close(fd)
	}
	return os.NewFile(uintptr(fd), "pidfd"), pid, nil
}
