package vassal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// joinFD is the first of the descriptors of a stage that joins a generation:
// Plan.Enter namespaces, then the root, then the working directory, then the user
// namespace if it has one of its own.
const joinFD = handshakeFD + 1

// joined is the whole way of a process that joins a generation: in, down, exec.
func (plan *Plan) joined(ctx context.Context, p *pipe) (int, error) {
	if err := plan.joinCgroups(); err != nil { // the jail's root may not show them
		return 1, err
	}
	if plan.Nest || plan.Reaper || plan.Users != nil {
		return plan.reap(p)
	}
	if err := plan.enter(); err != nil {
		return 1, err
	}
	if err := plan.environment(); err != nil {
		return 1, err
	}
	if err := plan.takeTerminal(); err != nil {
		return 1, err
	}
	return 1, plan.become(ctx, p)
}

func (plan *Plan) takeTerminal() error {
	if !plan.Terminal {
		return nil
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take the terminal: %w", err)
	}
	return nil
}

// places are the descriptors of where the generation is.
func (plan *Plan) places() (fds []uintptr) {
	if !plan.Joined {
		return nil
	}
	count := plan.Enter + 2
	if plan.Users != nil {
		count++
	}
	for i := range count {
		fds = append(fds, uintptr(joinFD+i))
	}
	return fds
}

// enter moves this thread, the one that execs, to where the generation is. The
// descriptors are closed: a reaper stays.
func (plan *Plan) enter() error {
	if err := plan.enterPlaces(); err != nil {
		return fmt.Errorf("join the jail: %w", err)
	}
	return nil
}

func (plan *Plan) enterPlaces() error {
	// Threads of a process share their root and working directory, and such a
	// thread may not enter a mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the shared working directory: %w", err)
	}
	for fd := joinFD; fd < joinFD+plan.Enter; fd++ {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
	}
	root, dir := joinFD+plan.Enter, joinFD+plan.Enter+1
	err := unix.Fchdir(root)
	if err == nil {
		err = unix.Chroot(".")
	}
	if err == nil {
		err = unix.Fchdir(dir)
	}
	last := dir
	if plan.Users != nil {
		last = plan.usersFD()
	}
	for fd := joinFD; fd <= last; fd++ {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

// settled is the end of a stage without an app: it tells the environment that
// its hooks left, and waits until the emperor holds its namespaces.
func (plan *Plan) settled(p *pipe) error {
	if err := p.send(word{Settled: true, Env: os.Environ()}); err != nil {
		return err
	}
	return p.awaitAnswer()
}

// writePidfile writes our pid, which will be the app's, with the app's rights.
func (plan *Plan) writePidfile() error {
	if plan.Pidfile == "" {
		return nil
	}
	f, err := os.OpenFile(plan.Pidfile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("pidfile: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("pidfile: %w", err)
	}
	return nil
}
