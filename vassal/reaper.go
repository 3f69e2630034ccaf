package vassal

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// reap is the whole life of an init stage that is pid 1 of a pid namespace. It
// starts the real init stage beside itself, gives its rights away, waits for
// orphans, and ends with the app. Its end kills the namespace.
func (plan *Plan) reap(p *pipe) (int, error) {
	// There may be many of us. What our program made at its start is less than
	// what it takes to look for what of it is of no use.
	debug.SetGCPercent(-1)
	next, err := plan.awaitPass()
	if err != nil {
		return 1, err
	}
	pid, err := plan.startSecond(p)
	if err != nil {
		return 1, fmt.Errorf("start in the pid namespace: %w", err)
	}
	// Only now: our program as the jail's /proc has it may be the jail's own.
	enter := plan.setns
	if plan.Joined {
		enter = plan.enter
	}
	if err := enter(); err != nil {
		return 1, err
	}
	err = p.close()
	if plan.Protocol {
		err = errors.Join(err, unix.Close(channelFD)) // it is the app's
	}
	if plan.Settings != SettingsNone {
		err = errors.Join(err, unix.Close(settingsFD))
	}
	if err != nil {
		return 1, err
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	ignoreSignals()
	none := Plan{Bounded: true, UID: -1, GID: -1}
	if err := none.confine(); err != nil {
		return 1, nil // the pipe is closed; our end takes the namespace with it
	}
	pid = next(pid)
	for {
		var status syscall.WaitStatus
		switch done, err := syscall.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD) && len(plan.Args) == 0:
			<-children // there is no app whose end would be ours; who joins is not our child, his orphans are
		case err != nil:
			return 1, nil
		case done == pid && len(plan.Args) == 0 && status.ExitStatus() == 0: // the hooks are done
		case done == pid && status.Signaled():
			return signalExit + int(status.Signal()), nil
		case done == pid:
			return status.ExitStatus(), nil
		}
	}
}

// ignoreSignals shields pid 1 from its own namespace: the kernel does so only
// for signals without a handler (pid_namespaces(7)), and Go's runtime has one
// for all. SIGCHLD stays: children of who ignores it cannot be waited for.
func ignoreSignals() {
	const last = 64
	for sig := syscall.Signal(1); sig <= last; sig++ {
		if sig != syscall.SIGCHLD {
			signal.Ignore(sig)
		}
	}
}

// signalExit added to a signal's number is the exit code of a reaper whose app
// was ended by the signal, as shells do it.
const signalExit = 128

// startSecond clones the stage that becomes the app. It inherits the
// handshake, where the emperor sends the plan once more; its pidfd goes up.
func (plan *Plan) startSecond(p *pipe) (int, error) {
	pidfd := -1
	files := []uintptr{0, 1, 2, handshakeFD}
	if plan.Protocol {
		files = append(files, channelFD)
	}
	if plan.Settings != SettingsNone {
		files = append(files, settingsFD)
	}
	if plan.Joined && plan.Users != nil && !plan.Nest {
		return plan.startInside(p)
	}
	files = append(files, plan.places()...)
	if plan.pass != 0 {
		files = append(files, uintptr(plan.pass))
	}
	sys := &syscall.SysProcAttr{PidFD: &pidfd, Setsid: true}
	if plan.Nest {
		sys.Cloneflags = unix.CLONE_NEWPID
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], InitStage}, &syscall.ProcAttr{
		Env: os.Environ(), Files: files, Sys: sys,
	})
	if err != nil {
		return 0, err
	}
	if pidfd < 0 {
		return 0, errors.New("this kernel has no pidfds (Linux 5.3)")
	}
	return pid, errors.Join(p.send(word{App: true}, pidfd), unix.Close(pidfd))
}
