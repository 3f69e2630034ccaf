package vassal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
	"fiefdom/internal/pidfd"
)

// Launch is what a start needs beside the jail.
type Launch struct {
	Plan       Plan
	Env        []string // of the app, beside the plan's: what only this launch has
	Namespaces uintptr  // fresh for each generation: CLONE_NEWPID, NEWNS, NEWIPC, NEWUTS
	Cgroup     Cgroup   // of this generation; empty where there is no v2 tree
	Budget     *Budget  // of this generation, which ends it; nil: no limits, or those of the generation that is joined
	Stdin      *os.File // the app's 0; nil: nothing to read
	Output     *os.File // the app's 1, and its 2
	Errors     *os.File // the app's 2 where it is another; nil: Output
	Dir        string   // where the hooks begin, and the app without chdir; empty: /
	Document   []byte   // what the app finds by Plan.Settings

	// Log takes the file of logto, which is the callee's from then on, before
	// the vassal writes its first line.
	Log func(*logfile.File)

	// Pidfile makes the app one that goes into the background: whoever it names
	// within Patience of the app's end is the app then. Followed is told its pid.
	Pidfile  string
	Patience time.Duration
	Followed func(pid int)

	// Cloned is told the pid of the process before it does anything; nil: nobody
	// minds.
	Cloned func(pid int)

	Group bool // signals are for the whole process group of the app
}

// Generation is one start of a vassal's app. Whoever started it must call Wait.
type Generation struct {
	PID     int       // the app's
	Started time.Time // when it became the app
	Channel *Channel  // of the emperor protocol; nil: the app does not speak it

	settings *settings // nil: the app takes them only when it starts

	process *os.Process // nil: another emperor's child
	pid     int         // of process
	end     *os.File    // pidfd of process, in the poller: waiting costs no thread
	inode   uint64      // of the jail's network namespace; 0: the emperor's
	app     *os.File    // pidfd of the app behind a reaper; nil: process is the app
	cgroup  Cgroup
	names   *nsServer // of setns-socket
	reaped  bool      // behind a reaper: exit codes over 128 are signals

	jail   *Jail
	ground *ground  // of a generation without an app
	base   *ground  // that this process has joined
	env    []string // that the root's hooks left; of a generation with an app
	launch Launch

	once sync.Once
	exit Exit

	recent recentUsage

	mu     sync.Mutex
	over   bool             // app is closed
	waited bool             // process has been waited for
	guests map[*ground]bool // of processes beside the app
	shut   bool             // no guest may come any more
}

// Start clones the init stage into the jail and waits until it has become the
// app. Whatever went wrong, nothing of the attempt is left.
//
// Without Args there is no app: the hooks are run, and the generation is there
// for processes that Join it, until Kill.
func (j *Jail) Start(ctx context.Context, l Launch) (*Generation, error) { return j.start(ctx, l, nil) }

func (j *Jail) start(ctx context.Context, l Launch, base *ground) (*Generation, error) {
	ours, theirs, err := newPipe()
	if err != nil {
		return nil, errors.Join(err, l.discard())
	}
	defer ours.close()
	g := &Generation{cgroup: l.Cgroup, reaped: l.Plan.Reaper || l.Plan.Nest || l.Plan.Joined && l.Plan.Users != nil, inode: j.Inode, jail: j, base: base, launch: l}
	files := []*os.File{theirs}
	if l.Plan.Protocol {
		var end *os.File
		if g.Channel, end, err = newChannel(); err != nil {
			return nil, errors.Join(err, theirs.Close(), l.discard())
		}
		files = append(files, end)
	}
	if l.Plan.Settings != SettingsNone {
		var end *os.File
		if g.settings, end, err = newSettings(l.Plan.Settings, l.Document); err != nil {
			for _, f := range files {
				err = errors.Join(err, f.Close())
			}
			return nil, errors.Join(err, g.closeChannel(), l.discard())
		}
		files = append(files, end)
	}
	err = j.clone(g, l, files...)
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clone: %w", explainClone(err, l.Namespaces)), g.closeChannel(), l.discard())
	}
	// gofail: var stageCloned struct{}
	g.PID, g.pid = g.process.Pid, g.process.Pid
	if l.Cloned != nil {
		l.Cloned(g.pid)
	}
	stop := context.AfterFunc(ctx, func() { g.Kill() })
	if err = g.bind(); err == nil { // until it has its plan the stage does nothing
		// gofail: var stageLimited struct{}
		l.Plan.Env = append(slices.Clip(l.Plan.Env), l.Env...)
		err = g.converse(ctx, j, ours, &l)
	}
	if err == nil && g.ground == nil {
		err = errors.Join(g.readBack(), g.exempt(), g.serve(&l.Plan.Isolation)) // the reaper is complete now
	}
	if g.ground != nil && !g.reaped {
		g.PID = 0
	}
	if !stop() {
		err = errors.Join(ctx.Err(), err) // what it said when it was killed does not matter
	}
	if err != nil {
		g.Kill()
		g.Wait()
		return nil, err
	}
	g.Started = time.Now()
	return g, nil
}

// discard removes the cgroup and the budget of a start that made no process.
func (l *Launch) discard() error {
	return errors.Join(l.Cgroup.discard(), l.Budget.Remove(context.Background()))
}

// bind puts what the process may use in force for it and all that it starts.
func (g *Generation) bind() error {
	budget := g.launch.Budget
	if g.base != nil {
		budget = g.base.budget
	}
	return errors.Join(budget.Enter(g.process.Pid), g.launch.Plan.Limits.scoreOOM(g.process.Pid))
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
	complaints := l.Errors
	if complaints == nil {
		complaints = l.Output
	}
	files := append([]*os.File{in, l.Output, complaints}, extra...)
	program := Program
	if g.base != nil {
		files = append(files, g.base.files()...)
	}
	if g.base != nil || l.Plan.Isolation.Setns != "" { // others are there already
		self, err := untouchable()
		if err != nil {
			return err
		}
		// By our own number: what becomes the child shuffles its descriptors before it executes the file (syscall.forkAndExecInChild).
		program = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), self)
	}
	end := -1
	sys := &syscall.SysProcAttr{Setsid: true, Cloneflags: l.Namespaces, PidFD: &end}
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
	if err := g.base.clone(j, func() error {
		g.process, err = os.StartProcess(program, []string{os.Args[0], InitStage}, &os.ProcAttr{Files: files, Dir: dir, Sys: sys})
		return err
	}); err != nil {
		return err
	}
	if end >= 0 && unix.SetNonblock(end, true) == nil {
		g.end = os.NewFile(uintptr(end), "process")
	}
	return nil
}

// converse leads the init stage from the plan to its end of file.
func (g *Generation) converse(ctx context.Context, j *Jail, p *pipe, l *Launch) error {
	plan, err := l.Plan.filtered()
	if err != nil {
		return err
	}
	if err := p.send(plan); err != nil {
		return err
	}
	// gofail: var planSent struct{}
	ready, stage := plan.Joined, *plan
	for {
		var w word
		fd, err := p.receive(&w)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
			if !ready || len(plan.Args) == 0 && g.ground == nil {
				return fmt.Errorf("the init stage ended early (%s)", g.Wait())
			}
			return nil
		case err != nil:
			return fmt.Errorf("handshake: %w", err)
		case w.Error != "":
			return errors.New(w.Error)
		case w.Log:
			f, err := plan.openLog(os.NewFile(uintptr(fd), "folder"))
			if err != nil {
				return fmt.Errorf("logto %s: %w", plan.LogTo, err)
			}
			// gofail: var logOpened struct{}
			l.Log(f)
			if err := p.send(goAhead{Go: true}); err != nil {
				return err
			}
		case w.App:
			if plan.Joined || !w.Inside { // else who passed on, and is gone
				spareFromOOM(g.PID)
			}
			if err := errors.Join(g.exempt(), g.adopt(fd)); err != nil {
				return err
			}
			// gofail: var appTaken struct{}
			stage.Reaper, stage.Nest, stage.Mounts, stage.Inside = stage.Nest, false, false, w.Inside
			if stage.Joined {
				stage.Isolation = Isolation{} // it is in its cgroups already
			}
			if err := p.send(stage); err != nil {
				return err
			}
		case w.Settled:
			if err := g.lay(plan, w.Env); err != nil {
				return err
			}
			if err := p.send(goAhead{Go: true}); err != nil {
				return err
			}
		case w.Plain:
			g.settings.plain = true
		case w.Waiting:
			if err := j.Register(ctx); err != nil {
				return err
			}
			// gofail: var addressRegistered struct{}
			ready, g.env = true, w.Env
			if err := p.send(goAhead{Go: true}); err != nil {
				return err
			}
		}
	}
}

// exempt raises limit-pids by the threads of the reaper, which is ours. Reapers of
// those who join count as their daemons do.
func (g *Generation) exempt() error {
	if g.reaper() == 0 {
		return nil
	}
	return g.launch.Budget.exempt(tasksOf(g.pid))
}

// adopt takes the app's pidfd from its reaper; it knows the app's pid here.
func (g *Generation) adopt(fd int) error {
	g.mu.Lock() // a start that is cancelled may kill meanwhile
	if g.app != nil {
		_ = g.app.Close() // a reaper's
	}
	g.app = os.NewFile(uintptr(fd), "app")
	g.mu.Unlock()
	pid, err := pidfd.PID(fd)
	if err != nil {
		return err
	}
	g.PID = pid
	return nil
}
