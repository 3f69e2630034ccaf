package vassal

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/pidfd"
)

// Signal sends a signal to the app; to a process that is gone it does nothing.
func (g *Generation) Signal(sig syscall.Signal) error {
	err := g.signal(sig)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// signal signals the app, behind a reaper or followed by its pidfile, unless
// Wait has given it up; else the process, or its group.
func (g *Generation) signal(sig syscall.Signal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.over:
		return nil
	case g.app != nil:
		return unix.PidfdSendSignal(int(g.app.Fd()), sig, nil, 0)
	case g.launch.Group && !g.waited:
		return g.signalGroup(sig)
	}
	return g.signalProcess(sig)
}

// closeApp gives the app's pidfd up, once nobody uses it.
func (g *Generation) closeApp() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	if g.app == nil {
		return nil
	}
	return g.app.Close()
}

// Kill ends the app and every process that it left, whatever they ignore.
func (g *Generation) Kill() {
	g.mu.Lock()
	ground := g.ground
	g.mu.Unlock()
	if ground != nil {
		ground.end()
	}
	if g.cgroup != "" {
		_ = g.cgroup.Kill()
	}
	_ = g.signal(unix.SIGKILL)        // behind a reaper that is no pid 1
	_ = g.signalProcess(unix.SIGKILL) // its children too when it is a reaper; else Wait looks for them
}

// Wait waits for the app's end, ends what is left of it, and says how it
// ended. It may be called more than once, also from several goroutines.
func (g *Generation) Wait() Exit {
	g.once.Do(func() {
		g.awaitEnd()
		g.mu.Lock()
		if (g.base != nil || g.inode == 0) && g.cgroup == "" && g.end != nil {
			_ = g.signalGroup(unix.SIGKILL) // all that is known of its children
		}
		g.waited = true
		g.mu.Unlock()
		g.exit = g.reap()
		// gofail: var processReaped struct{}
		g.follow()
		g.endGuests()
		if g.ground != nil {
			g.ground.await(g.reaped)
		}
		ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
		defer cancel()
		g.exit.OOMKills = g.launch.Budget.Kills() // as long as there is somebody to ask
		if g.cgroup != "" {
			g.exit.Err = errors.Join(g.exit.Err, g.cgroup.Remove(ctx))
		} else if g.inode != 0 && g.base == nil {
			g.exit.Err = errors.Join(g.exit.Err, KillNamespace(g.inode))
		}
		// gofail: var generationCgroupRemoved struct{}
		g.exit.Err = errors.Join(g.exit.Err, g.launch.Budget.Remove(ctx))
		if names := g.takeNames(); names != nil {
			g.exit.Err = errors.Join(g.exit.Err, names.close())
		}
		g.exit.Err = errors.Join(g.exit.Err, g.closeApp(), g.closeChannel())
		if g.ground != nil {
			g.exit.Err = errors.Join(g.exit.Err, g.ground.close())
		}
		if g.base != nil {
			g.base.leave(g)
		}
	})
	return g.exit
}

// takeNames takes the namespaces that are given away out of Keep's sight, before
// their descriptors are closed and others get the numbers.
func (g *Generation) takeNames() *nsServer {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := g.names
	g.names = nil
	return names
}

// removeTimeout bounds the wait for killed processes: only one stuck in the
// kernel (state D) takes longer.
const removeTimeout = 10 * time.Second

// awaitEnd waits until the process has ended. From then on its pid is its own
// only until it is waited for.
func (g *Generation) awaitEnd() {
	if g.end == nil {
		return
	}
	_ = pidfd.Await(g.end)
	if g.process != nil {
		_ = g.end.Close() // of another's child it has to tell how it ended
	}
}
