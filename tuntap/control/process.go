package control

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"fiefdom/internal/pidfd"
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

// stranger is a process that is somebody else's child. wait closes its pidfd.
func stranger(pid int, end *os.File) *process {
	return &process{
		pid:  pid,
		kill: func() error { return pidfd.Signal(end, unix.SIGKILL, 0) },
		wait: func() (how string, err error) {
			if err = pidfd.Await(end); err == nil {
				how = exitStatus(end)
			}
			return how, errors.Join(err, end.Close())
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

// exitStatus is how a process that is not ours ended, as far as the kernel tells.
func exitStatus(end *os.File) string {
	status, err := pidfd.Status(end)
	switch {
	case err != nil:
		return "exit status unknown"
	case status.Signaled():
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
