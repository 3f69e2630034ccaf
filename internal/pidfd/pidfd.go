// Package pidfd is about processes by their descriptors: of children, and of
// those that are somebody else's, as what an emperor before has left.
package pidfd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens a process, for Await too: it does not block.
func Open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "process"), nil
}

// Await waits until the process has ended: its pidfd is readable then
// (pidfd_open(2)). It does so in the poller: a thousand vassals would be a
// thousand threads in waitid. With a read deadline it gives up at that time, with
// os.ErrDeadlineExceeded. The descriptor must not block.
func Await(process *os.File) error {
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if errors.Is(err, unix.EINTR) {
			return false
		}
		result = err
		return n > 0 || err != nil
	})
	return errors.Join(err, result)
}

// Signal sends a signal. Of a process that has ended, and has been waited for,
// the error is ESRCH; of a file that is closed os.ErrClosed.
func Signal(process *os.File, sig syscall.Signal, flags int) error {
	return control(process, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, flags) })
}

// ErrUnknown says that nobody but its parent knows how a process ended.
var ErrUnknown = errors.New("only its parent knows how it ended")

// Status is the wait status of a process that has ended: of one that has been
// waited for by its pidfd (Linux 6.15), of a zombie by /proc.
func Status(process *os.File) (status syscall.WaitStatus, err error) {
	err = control(process, func(fd int) (err error) {
		status, err = statusOf(fd)
		return err
	})
	return status, err
}

func statusOf(fd int) (syscall.WaitStatus, error) {
	told := func() (syscall.WaitStatus, bool) {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := unix.IoctlPidfdInfo(fd, &info)
		return syscall.WaitStatus(info.Exit_code), err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0
	}
	if status, ok := told(); ok {
		return status, nil
	}
	pid, err := PID(fd)
	if err != nil {
		return 0, err
	}
	if pid > 0 {
		status, err := zombieStatus(pid)
		if again, perr := PID(fd); err == nil && perr == nil && again == pid {
			return status, nil
		}
	}
	if status, ok := told(); ok { // it was waited for meanwhile
		return status, nil
	}
	return 0, ErrUnknown
}

// zombieStatus is the last field of /proc/PID/stat.
func zombieStatus(pid int) (syscall.WaitStatus, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) == 0 || fields[0] != "Z" {
		return 0, ErrUnknown
	}
	n, err := strconv.Atoi(fields[len(fields)-1])
	return syscall.WaitStatus(n), err
}

// PID is the pid of a pidfd as this pid namespace numbers it (proc(5)); less
// than 1: it has none here, or has been waited for.
func PID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, errors.New("pidfd without a pid")
}

// control makes a system call on a file's descriptor.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if raw.Control(func(fd uintptr) { result = call(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return result
}
