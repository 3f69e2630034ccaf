package control

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a router process: a child, or one that an emperor before left.
type process struct {
	pid  int
	kill func() error
	wait func() (how string, err error)
}

func child(p *os.Process) *process {
	return &process{pid: p.Pid, kill: p.Kill, wait: func() (string, error) {
		state, err := p.Wait()
		return state.String(), err
	}}
}

// reapTime is how long whoever is the parent may take to reap a process before
// nobody is asked for its exit status any more.
const reapTime = time.Second

// stranger is a process that is somebody else's child. wait closes pidfd.
func stranger(pid int, pidfd *os.File) *process {
	return &process{
		pid: pid,
		kill: func() error {
			return control(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
		},
		wait: func() (how string, err error) {
			err = control(pidfd, func(fd int) error {
				if err := poll(fd, unix.POLLIN, -1); err != nil {
					return err
				}
				how = exitStatus(fd)
				return nil
			})
			return how, errors.Join(err, pidfd.Close())
		},
	}
}

func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) })
	return errors.Join(err, cerr)
}

// exitStatus is how a process that is not ours ended, as far as the kernel tells
// (Linux 6.15, PIDFD_INFO_EXIT), which it does when the process has been reaped.
func exitStatus(pidfd int) string {
	_ = poll(pidfd, 0, int(reapTime.Milliseconds())) // POLLHUP: it is reaped
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return "exit status unknown"
	}
	status := syscall.WaitStatus(info.Exit_code)
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// poll waits for one descriptor, most milliseconds; -1: for ever.
func poll(fd int, events int16, most int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, most)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
