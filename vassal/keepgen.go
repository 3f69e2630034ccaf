package vassal

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/vault"
)

// GenerationRecord is what the next emperor has to know of a generation beside
// its descriptors.
type GenerationRecord struct {
	PID        int           `json:"pid"`
	Process    int           `json:"process"` // the pid of the process that was started
	Started    int64         `json:"started"` // nanoseconds of the monotonic clock
	Cgroup     Cgroup        `json:"cgroup"`
	Reaped     bool          `json:"reaped"`
	Plan       Plan          `json:"plan"`
	Dir        string        `json:"dir"`
	Pidfile    string        `json:"pidfile,omitempty"`
	Patience   time.Duration `json:"patience,omitempty"`
	Group      bool          `json:"group,omitempty"`
	Plain      bool          `json:"plain,omitempty"`      // of the settings
	Ground     bool          `json:"ground,omitempty"`     // it has no app
	Namespaces int           `json:"namespaces,omitempty"` // of the ground
	Env        []string      `json:"env,omitempty"`        // of the ground
	AppEnv     []string      `json:"app_env,omitempty"`    // of the app, for guests
	Served     int           `json:"served,omitempty"`     // namespaces that setns-socket gives away
}

// ChannelFile is the name of the emperor's end of a channel among the files
// that are kept.
const ChannelFile = "channel"

// Keep adds the generation's descriptors to files. It fails when the generation
// has ended.
func (g *Generation) Keep(files *vault.Files) (GenerationRecord, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := &g.launch
	r := GenerationRecord{
		PID: g.PID, Process: g.pid, Started: Monotonic() - int64(time.Since(g.Started)), Cgroup: g.cgroup, Reaped: g.reaped,
		Plan: l.Plan, Dir: l.Dir, Pidfile: l.Pidfile, Patience: l.Patience, Group: l.Group, AppEnv: g.env,
	}
	if g.over {
		return r, os.ErrProcessDone
	}
	errs := []error{files.Add("app", g.app)}
	if err := files.Add("process", g.end); err != nil && !errors.Is(err, os.ErrClosed) { // it may have ended, and left an app or a ground
		errs = append(errs, err)
	}
	if g.Channel != nil {
		errs = append(errs, files.Add(ChannelFile, g.Channel.file))
	}
	if g.settings != nil {
		r.Plain = g.settings.plain
		errs = append(errs, files.Add("settings", g.settings.file))
	}
	if g.ground != nil {
		r.Ground, r.Namespaces, r.Env = true, len(g.ground.namespaces), g.ground.env
		errs = append(errs, g.ground.keep(files))
	}
	if g.names != nil {
		r.Served = len(g.names.fds)
		for i, fd := range g.names.fds {
			errs = append(errs, files.AddFD(fmt.Sprint("served", i), fd))
		}
	}
	return r, errors.Join(errs...)
}

func (g *ground) keep(files *vault.Files) error {
	errs := []error{files.Add("pids", g.pids), files.Add("root", g.root), files.Add("dir", g.dir), files.Add("users", g.users)}
	for i, f := range g.namespaces {
		errs = append(errs, files.Add(fmt.Sprint("namespace", i), f))
	}
	return errors.Join(errs...)
}

// Restore makes a generation of the jail of what Keep has told. base is the
// generation that it had joined; nil: none. followed is told the pid of an app
// that is found by its pidfile. Whoever restores it must call Wait.
func (j *Jail) Restore(r GenerationRecord, files *vault.Files, base *Generation, followed func(pid int)) (*Generation, error) {
	g := &Generation{
		PID: r.PID, pid: r.Process, Started: time.Now().Add(-time.Duration(Monotonic() - r.Started)), cgroup: r.Cgroup, reaped: r.Reaped,
		inode: j.Inode, jail: j, env: r.AppEnv, app: files.Take("app"), end: files.Take("process"),
		launch: Launch{Plan: r.Plan, Dir: r.Dir, Cgroup: r.Cgroup, Pidfile: r.Pidfile, Patience: r.Patience, Followed: followed, Group: r.Group},
	}
	g.exit.Followed = g.end == nil && r.Pidfile != ""
	if f := files.Take(ChannelFile); f != nil {
		g.Channel = &Channel{file: f, done: make(chan struct{})}
	}
	if f := files.Take("settings"); f != nil {
		g.settings = &settings{way: r.Plan.Settings, file: f, plain: r.Plain}
	}
	err := g.restoreGround(r, files)
	if err == nil && g.end == nil && g.ground == nil && !g.exit.Followed {
		err = errors.New("no process")
	}
	if err == nil && r.Served > 0 {
		err = g.serveAgain(r, files)
	}
	if err == nil && base != nil {
		err = base.ground.welcome(g)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("generation: %w", err), g.abandon())
	}
	return g, nil
}

// abandon closes what a generation has that is not to be restored.
func (g *Generation) abandon() error {
	errs := []error{g.closeApp(), g.closeChannel()}
	if g.end != nil {
		errs = append(errs, g.end.Close())
	}
	if g.names != nil {
		errs = append(errs, g.names.close())
	}
	if g.ground != nil {
		errs = append(errs, g.ground.close())
	}
	return errors.Join(errs...)
}

func (g *Generation) restoreGround(r GenerationRecord, files *vault.Files) error {
	if !r.Ground {
		return nil
	}
	g.ground = newGround(r.Env)
	g.ground.pids, g.ground.root, g.ground.dir = files.Take("pids"), files.Take("root"), files.Take("dir")
	g.ground.users = files.Take("users")
	for i := range r.Namespaces {
		f := files.Take(fmt.Sprint("namespace", i))
		if f == nil {
			return errors.New("a namespace is missing")
		}
		g.ground.namespaces = append(g.ground.namespaces, f)
	}
	if g.ground.root == nil || g.ground.dir == nil {
		return errors.New("its root or its folder is missing")
	}
	return nil
}

// serveAgain goes on giving namespaces away.
func (g *Generation) serveAgain(r GenerationRecord, files *vault.Files) error {
	s := &nsServer{}
	err := s.takeAll(r.Served, files)
	if err == nil {
		err = s.listen(r.Plan.Isolation.Serve)
	}
	if err != nil {
		closeAll(s.fds)
		return fmt.Errorf("setns-socket: %w", err)
	}
	s.done.Go(s.serve)
	g.names = s
	return nil
}

func (s *nsServer) takeAll(n int, files *vault.Files) error {
	for i := range n {
		f := files.Take(fmt.Sprint("served", i))
		if f == nil {
			return errors.New("a namespace is missing")
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		s.fds = append(s.fds, fd)
	}
	return nil
}

// welcome lets a process that had joined do so again.
func (g *ground) welcome(joined *Generation) error {
	if g == nil {
		return errors.New("what it had joined has an app")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight.Add(1)
	g.joined[joined] = true
	joined.base = g
	return nil
}

// Monotonic is the clock that neither jumps nor begins anew while the machine
// is up, in nanoseconds: it means the same to the next emperor.
func Monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Resume gives a restored generation its budget, before anybody waits for its
// end or joins it.
func (g *Generation) Resume(b *Budget) {
	if b != nil && g.reaped {
		b.exempted = tasksOf(g.pid) // it is in force already
	}
	g.launch.Budget = b
	if g.ground != nil {
		g.ground.budget = b
	}
}
