package vassal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Launch is what a start needs beside the jail.
type Launch struct {
	Plan       Plan
	Namespaces uintptr  // fresh for each generation: CLONE_NEWPID, NEWNS, NEWIPC, NEWUTS
	Cgroup     Cgroup   // of this generation; empty where there is no v2 tree
	Stdin      *os.File // the app's 0; nil: nothing to read
	Output     *os.File // the app's 1 and 2
	Dir        string   // where the hooks begin, and the app without chdir; empty: /
	Document   []byte   // what the app finds by Plan.Settings

	// Log takes the file of logto, which is the callee's from then on, before
	// the vassal writes its first line.
	Log func(*os.File)
}

// Generation is one start of a vassal's app. Whoever started it must call Wait.
type Generation struct {
	PID     int       // the app's
	Started time.Time // when it became the app
	Channel *Channel  // of the emperor protocol; nil: the app does not speak it

	settings *settings // nil: the app takes them only when it starts

	process *os.Process
	end     *os.File // pidfd of process, in the poller: waiting costs no thread
	inode   uint64   // of the jail's network namespace; 0: the emperor's
	app     *os.File // pidfd of the app behind a reaper; nil: process is the app
	cgroup  Cgroup
	names   *nsServer // of setns-socket
	reaped  bool      // behind a reaper: exit codes over 128 are signals

	once sync.Once
	exit Exit

	mu   sync.Mutex
	over bool // app is closed
}

// Exit is how an app ended.
type Exit struct {
	Code   int            // meaningful when Signal is 0
	Signal syscall.Signal // 0: it exited
	Err    error          // cleaning up after it failed: processes may be left
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "killed by " + unix.SignalName(e.Signal)
	}
	return "exit code " + strconv.Itoa(e.Code)
}

// Start clones the init stage into the jail and waits until it has become the
// app. Whatever went wrong, nothing of the attempt is left.
func (j *Jail) Start(ctx context.Context, l Launch) (*Generation, error) {
	ours, theirs, err := newPipe()
	if err != nil {
		return nil, errors.Join(err, l.Cgroup.discard())
	}
	defer ours.close()
	g := &Generation{cgroup: l.Cgroup, reaped: l.Plan.Reaper, inode: j.Inode}
	files := []*os.File{theirs}
	if l.Plan.Protocol {
		var end *os.File
		if g.Channel, end, err = newChannel(); err != nil {
			return nil, errors.Join(err, theirs.Close(), l.Cgroup.discard())
		}
		files = append(files, end)
	}
	if l.Plan.Settings != SettingsNone {
		var end *os.File
		if g.settings, end, err = newSettings(l.Plan.Settings, l.Document); err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			return nil, errors.Join(err, g.closeChannel(), l.Cgroup.discard())
		}
		files = append(files, end)
	}
	err = j.clone(g, l, files...)
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clone: %w", explainClone(err, l.Namespaces)), g.closeChannel(), l.Cgroup.discard())
	}
	g.PID = g.process.Pid
	stop := context.AfterFunc(ctx, func() { g.Kill() })
	err = g.converse(ctx, j, ours, &l)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		g.Kill()
		g.Wait()
		return nil, err
	}
	if l.Plan.Isolation.Serve != "" {
		if g.names, err = serveNamespaces(&l.Plan.Isolation, g.PID); err != nil {
			g.Kill()
			g.Wait()
			return nil, err
		}
	}
	g.Started = time.Now()
	return g, nil
}

// discard removes the cgroup of a clone that failed.
func (c Cgroup) discard() error {
	if c == "" {
		return nil
	}
	return c.Remove(context.Background())
}

// closeChannel ends the emperor protocol.
func (g *Generation) closeChannel() error {
	var errs []error
	if g.Channel != nil {
		errs = append(errs, g.Channel.close())
	}
	if g.settings != nil {
		errs = append(errs, g.settings.file.Close())
	}
	return errors.Join(errs...)
}

// clone starts the init stage from a thread in the jail, where it is born. The
// extra files are its handshake, and its channel and settings if it has them.
func (j *Jail) clone(g *Generation, l Launch, extra ...*os.File) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	in := l.Stdin
	if in == nil {
		in = null
	}
	files := append([]*os.File{in, l.Output, l.Output}, extra...)
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: l.Namespaces, PidFD: &pidfd}
	if err := mapUsers(sys, &l.Plan); err != nil {
		return err
	}
	if l.Cgroup != "" {
		dir, err := l.Cgroup.Open()
		if err != nil {
			return err
		}
		defer dir.Close()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	}
	dir := l.Dir
	if dir == "" {
		dir = "/"
	}
	if err := j.Do(func() error {
		g.process, err = os.StartProcess("/proc/self/exe", []string{os.Args[0], InitStage}, &os.ProcAttr{Files: files, Dir: dir, Sys: sys})
		return err
	}); err != nil {
		return err
	}
	if pidfd >= 0 && unix.SetNonblock(pidfd, true) == nil {
		g.end = os.NewFile(uintptr(pidfd), "process")
	}
	return nil
}

// awaitEnd waits until the process has ended, in the poller: a thousand
// vassals would be a thousand threads in waitid. A pidfd becomes readable
// then (pidfd_open(2)).
func (g *Generation) awaitEnd() {
	if g.end == nil {
		return
	}
	if raw, err := g.end.SyscallConn(); err == nil {
		_ = raw.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
	}
	_ = g.end.Close()
}

// converse leads the init stage from the plan to its end of file.
func (g *Generation) converse(ctx context.Context, j *Jail, p *pipe, l *Launch) error {
	plan := &l.Plan
	if err := p.send(plan); err != nil {
		return err
	}
	ready := false
	for {
		var w word
		fd, err := p.receive(&w)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
			if !ready {
				return fmt.Errorf("the init stage ended early (%s)", g.Wait())
			}
			return nil
		case err != nil:
			return fmt.Errorf("handshake: %w", err)
		case w.Error != "":
			return errors.New(w.Error)
		case w.Log:
			l.Log(os.NewFile(uintptr(fd), plan.LogTo))
			if err := p.send(goAhead{Go: true}); err != nil {
				return err
			}
		case w.App:
			if err := g.adopt(fd); err != nil {
				return err
			}
			second := *plan
			second.Reaper, second.Mounts = false, false
			second.Isolation.Join = ""
			if err := p.send(second); err != nil {
				return err
			}
		case w.Plain:
			g.settings.plain = true
		case w.Waiting:
			if err := j.Register(ctx); err != nil {
				return err
			}
			ready = true
			if err := p.send(goAhead{Go: true}); err != nil {
				return err
			}
		}
	}
}

// adopt takes the app's pidfd from its reaper; it knows the app's pid here.
func (g *Generation) adopt(fd int) error {
	g.mu.Lock() // a start that is cancelled may kill meanwhile
	g.app = os.NewFile(uintptr(fd), "app")
	g.mu.Unlock()
	pid, err := pidOf(fd)
	if err != nil {
		return err
	}
	g.PID = pid
	return nil
}

// pidOf reads the pid of a pidfd as this pid namespace numbers it (proc(5)).
func pidOf(pidfd int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var key string
	var value int
	for {
		n, err := fmt.Fscanln(f, &key, &value)
		if n == 2 && key == "Pid:" {
			return value, nil
		}
		if errors.Is(err, io.EOF) {
			return 0, errors.New("pidfd without a pid")
		}
	}
}

// Signal sends a signal to the app; to a process that is gone it does nothing.
func (g *Generation) Signal(sig syscall.Signal) error {
	var err error
	if g.app != nil {
		err = g.signalApp(sig)
	} else {
		err = g.process.Signal(sig)
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// signalApp signals the app behind a reaper, if it is there, unless Wait has
// given it up.
func (g *Generation) signalApp(sig syscall.Signal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || g.app == nil {
		return nil
	}
	return unix.PidfdSendSignal(int(g.app.Fd()), sig, nil, 0)
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
	if g.cgroup != "" {
		_ = g.cgroup.Kill()
	}
	_ = g.signalApp(unix.SIGKILL) // behind a reaper that is no pid 1
	_ = g.process.Kill()          // its children too when it is a reaper; else Wait looks for them
}

// Wait waits for the app's end, ends what is left of it, and says how it
// ended. It may be called more than once, also from several goroutines.
func (g *Generation) Wait() Exit {
	g.once.Do(func() {
		g.awaitEnd()
		state, err := g.process.Wait()
		g.exit.Err = err
		if err == nil {
			g.exit = g.exitOf(state.Sys().(syscall.WaitStatus))
		}
		if g.cgroup != "" {
			ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
			defer cancel()
			g.exit.Err = errors.Join(g.exit.Err, g.cgroup.Remove(ctx))
		} else if g.inode != 0 {
			g.exit.Err = errors.Join(g.exit.Err, KillNamespace(g.inode))
		}
		if g.names != nil {
			g.exit.Err = errors.Join(g.exit.Err, g.names.close())
		}
		g.exit.Err = errors.Join(g.exit.Err, g.closeApp(), g.closeChannel())
	})
	return g.exit
}

// removeTimeout bounds the wait for killed processes: only one stuck in the
// kernel (state D) takes longer.
const removeTimeout = 10 * time.Second

func (g *Generation) exitOf(s syscall.WaitStatus) Exit {
	if s.Signaled() {
		return Exit{Signal: s.Signal()}
	}
	if code := s.ExitStatus(); g.reaped && code > signalExit {
		return Exit{Signal: syscall.Signal(code - signalExit)}
	}
	return Exit{Code: s.ExitStatus()}
}
