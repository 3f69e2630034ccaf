package vassal

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"fiefdom/internal/pidfd"
)

// An orphan is a process whose emperor is gone, and which the next one has
// adopted: nobody's child as far as he can wait, but known by its pidfd.

// reap says how the process ended, which it has.
func (g *Generation) reap() Exit {
	if g.process != nil {
		state, err := g.process.Wait()
		if err != nil {
			return Exit{Err: err}
		}
		return g.exitOf(state.Sys().(syscall.WaitStatus))
	}
	if g.end == nil {
		return g.exit // it had ended under the emperor before
	}
	defer g.end.Close()
	status, err := pidfd.Status(g.end)
	if err != nil {
		return Exit{Unknown: true}
	}
	return g.exitOf(status)
}

// signalProcess signals the process that was started.
func (g *Generation) signalProcess(sig syscall.Signal) error {
	if g.process != nil {
		return g.process.Signal(sig)
	}
	return g.signalOrphan(sig, 0)
}

// signalGroup signals the process group that it leads.
func (g *Generation) signalGroup(sig syscall.Signal) error {
	if g.process != nil {
		return unix.Kill(-g.pid, sig) // not waited for: the number is its own
	}
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
	err := g.signalOrphan(sig, group)
	if errors.Is(err, unix.EINVAL) {
		if err = g.signalOrphan(0, 0); err == nil {
			err = unix.Kill(-g.pid, sig)
		}
	}
	return err
}

func (g *Generation) signalOrphan(sig syscall.Signal, flags int) error {
	if g.end == nil {
		return os.ErrProcessDone
	}
	err := pidfd.Signal(g.end, sig, flags)
	if errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}
