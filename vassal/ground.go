package vassal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
)

// ground is what a generation without an app of its own is made of: its
// namespaces and its root after the hooks, held by descriptors, and the
// environment that the hooks left. Processes join it as long as it lasts.
//
// It ends by Kill, or with the first process of its pid namespace.
type ground struct {
	namespaces []*os.File // that a process enters by itself; the mount namespace is the last
	users      *os.File   // the user namespace, entered last of all; nil: the emperor's
	pids       *os.File   // the pid namespace, entered by who clones; nil: the emperor's
	root, dir  *os.File
	env        []string
	budget     *Budget // of the generation

	looking sync.RWMutex // held by who uses root; close ends it
	closed  bool

	over     context.Context // until end
	finish   context.CancelFunc
	mu       sync.Mutex
	ended    bool
	joined   map[*Generation]bool
	left     func()         // told of the end of each who had joined; nil: nobody asks
	inFlight sync.WaitGroup // of joins that have not been waited for
}

// layGround opens what the init stage pid is in. The stage waits meanwhile, so
// that the pid is its own.
func layGround(pid int, env []string, users *Users) (*ground, error) {
	g := newGround(env)
	if err := g.open(pid, users); err != nil {
		return nil, errors.Join(fmt.Errorf("hold the jail's namespaces: %w", err), g.close())
	}
	return g, nil
}

func newGround(env []string) *ground {
	g := &ground{env: env, joined: map[*Generation]bool{}}
	g.over, g.finish = context.WithCancel(context.Background())
	return g
}

func (g *ground) open(pid int, users *Users) error {
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, kind := range []string{"ipc", "uts", "net", "cgroup", "pid", "user", "mnt"} {
		path := proc + "ns/" + kind
		theirs, err := os.Readlink(path)
		if errors.Is(err, os.ErrNotExist) && kind != "mnt" {
			continue // a kernel without it
		}
		if err != nil {
			return err
		}
		// As the thread is that of no jail here: /proc/self is the first thread.
		if ours, err := os.Readlink("/proc/self/ns/" + kind); err != nil || ours == theirs {
			continue
		}
		if kind == "user" && users == nil {
			return errors.New("only one process can be in a user namespace that is made for it; leave it, or the attached processes out")
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		switch kind {
		case "pid":
			g.pids = f
		case "user":
			g.users = f
			if err := users.made(pid, f); err != nil {
				return err
			}
		default:
			g.namespaces = append(g.namespaces, f)
		}
	}
	var err error
	if g.root, err = openPath(proc + "root"); err != nil {
		return err
	}
	g.dir, err = openPath(proc + "cwd")
	return err
}

// lay takes what the init stage leaves where there is no app: the ground of
// who joins.
func (g *Generation) lay(plan *Plan, env []string) error {
	ground, err := layGround(g.PID, env, plan.Users)
	if err != nil {
		return err
	}
	ground.budget = g.launch.Budget
	g.mu.Lock()
	g.ground = ground
	g.mu.Unlock()
	return g.serve(&plan.Isolation)
}

func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// files are what a process that joins inherits, in the order of its stage.
func (g *ground) files() []*os.File {
	files := append(slices.Clip(g.namespaces), g.root, g.dir)
	if g.users != nil {
		files = append(files, g.users)
	}
	return files
}

// close gives the namespaces back.
func (g *ground) close() error {
	g.looking.Lock()
	defer g.looking.Unlock()
	g.closed = true
	var errs []error
	for _, f := range append(slices.Clip(g.namespaces), g.users, g.pids, g.root, g.dir) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Join starts a process in a generation without an app. It shares namespaces,
// root and environment; no hook runs again.
func (g *Generation) Join(ctx context.Context, l Launch) (*Generation, error) {
	if g.ground == nil {
		return nil, errors.New("join: the generation has an app")
	}
	return g.join(ctx, g.ground, l)
}

func (g *Generation) join(ctx context.Context, base *ground, l Launch) (*Generation, error) {
	base.mu.Lock()
	if base.ended {
		base.mu.Unlock()
		return nil, errors.Join(errors.New("join: the generation is over"), l.discard())
	}
	base.inFlight.Add(1)
	base.mu.Unlock()

	p := &l.Plan
	p.Joined, p.Enter = true, len(base.namespaces)
	p.Confined = p.Confined.joining(&g.launch.Plan)
	p.Hooks, p.StartHook, p.Mounts, p.Proc, p.Resolv, p.Hosts, p.Chroot, p.LogTo = nil, nil, false, false, "", "", "", ""
	p.Isolation = Isolation{Cgroups: p.Isolation.Cgroups, CgroupMode: p.Isolation.CgroupMode} // what belongs to a process
	p.CleanEnv, p.Env = true, append(slices.Clip(base.env), p.Env...)
	// Whoever is in the jail may stop the process on its way.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(base.over, cancel)()
	joined, err := g.jail.start(ctx, l, base)
	if err != nil {
		base.inFlight.Done()
		if base.pids != nil && errors.Is(err, unix.ENOMEM) {
			g.Kill() // the pid namespace, another's by setns, is at its end (pid_namespaces(7)): nobody can join again
		}
		return nil, err
	}
	base.mu.Lock()
	base.joined[joined] = true
	ended := base.ended
	base.mu.Unlock()
	if ended {
		joined.Kill()
	}
	return joined, nil
}

// leave is the end of a process that had joined.
func (g *ground) leave(joined *Generation) {
	g.mu.Lock()
	known := g.joined[joined]
	delete(g.joined, joined)
	g.mu.Unlock()
	if known {
		if g.left != nil {
			g.left()
		}
		g.inFlight.Done()
	}
}

// end lets nobody join any more, and kills who has.
func (g *ground) end() {
	g.mu.Lock()
	g.ended = true
	var joined []*Generation
	for j := range g.joined {
		joined = append(joined, j)
	}
	g.mu.Unlock()
	g.finish()
	for _, j := range joined {
		j.Kill()
	}
}

// await waits for the end, and until all who joined have been waited for. The
// end of a pid namespace's first process is the end.
func (g *ground) await(over bool) {
	if over {
		g.end()
	}
	<-g.over.Done()
	g.inFlight.Wait()
}

// clone runs fn with a thread that clones into the jail and the ground.
func (g *ground) clone(j *Jail, fn func() error) error {
	if g == nil || g.pids == nil {
		return j.Do(fn)
	}
	namespaces := []int{int(g.pids.Fd())}
	if j.ns.IsOpen() {
		namespaces = append(namespaces, int(j.ns))
	}
	return netns.Within(namespaces, fn)
}

// openIn opens a path as the processes see it, without following it out of
// their root. flags are those of open(2).
func (g *ground) openIn(path string, flags uint64) (*os.File, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%q is no absolute path", path)
	}
	g.looking.RLock()
	defer g.looking.RUnlock()
	if g.closed {
		return nil, os.ErrClosed
	}
	fd, err := unix.Openat2(int(g.root.Fd()), path, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Cgroup is where those who join have theirs below; empty where there is no
// v2 tree.
func (g *Generation) Cgroup() Cgroup { return g.cgroup }

// Touched says when a file of the generation was last written, in
// nanoseconds; 0: it is not there.
func (g *Generation) Touched(path string) int64 {
	f, err := g.ground.openIn(path, unix.O_PATH)
	if err != nil {
		return 0
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Mtim.Nano()
}
