package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"fiefdom/internal/pidfd"
)

// RecordedRouter opens the router that is on record, if it still lives. Without
// one all is zero.
func (i *Instance) RecordedRouter() (process *os.File, pid int, err error) {
	return recordedProcess(i.Path(routerRecord))
}

// recordProcess writes a pid and its start time: pids come back, together
// with start times they do not.
func recordProcess(path string, pid int) error {
	began, err := startTime(pid)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, fmt.Appendf(nil, "%d %s", pid, began), 0o600)
}

// recordedProcess opens the process of a record, if it still lives: one of that
// pid which began at that time. Without one all is zero.
func recordedProcess(record string) (process *os.File, pid int, err error) {
	b, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	var began string
	if _, serr := fmt.Sscan(string(b), &pid, &began); err != nil || serr != nil {
		return nil, 0, err // a torn record: the process was not started yet
	}
	if process, err = pidfd.Open(pid); err != nil {
		return nil, 0, nil //nolint:nilerr // it is gone
	}
	if now, err := startTime(pid); err != nil || now != began {
		return nil, 0, process.Close()
	}
	return process, pid, nil
}

// endProcess kills a recorded process; before, if any, comes first.
func endProcess(record string, before func(process *os.File) error) error {
	process, _, err := recordedProcess(record)
	if process == nil {
		return err
	}
	defer process.Close()
	if before != nil {
		if err := before(process); err != nil {
			return err
		}
	}
	return signalAndAwait(process, unix.SIGKILL)
}

// askRouter asks a leftover router to close its devices, which it does side
// by side, and waits a moment; what is left is killed after that.
func askRouter(process *os.File) error { return signalAndAwait(process, unix.SIGTERM) }

// endTime is how long a process may take to end; one that is stuck in the kernel
// is not waited for any longer.
const endTime = 10 * time.Second

func signalAndAwait(process *os.File, sig syscall.Signal) error {
	if err := pidfd.Signal(process, sig, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	err := process.SetReadDeadline(time.Now().Add(endTime))
	if err == nil {
		err = pidfd.Await(process)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// startTime is field 22 of /proc/PID/stat: clock ticks since boot.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields[19], nil
}
