package responder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper keeps a responder running. Set the exported fields, then Run. Its
// methods are safe for concurrent use.
type Keeper struct {
	troubles

	Log      *slog.Logger
	UID, GID int                 // the responder's own
	Cgroup   *os.File            // the directory that it is cloned into; nil: ours
	Started  func(pid int) error // records a process, before it is told anything
	Served   func()              // the first answers

	pause time.Duration // the first between short lives; 0: restartPause

	mu      sync.Mutex
	feed    Feed
	sockets []Socket
	news    chan struct{} // the feed or the sockets have changed
	asked   chan struct{} // closed once there is a socket
	once    sync.Once     // of both channels
	first   sync.Once     // of closing it
}

func (k *Keeper) make() {
	k.once.Do(func() { k.news, k.asked = make(chan struct{}, 1), make(chan struct{}) })
}

// Change changes what responders are told, now and from then on.
func (k *Keeper) Change(change func(*Feed)) {
	k.make()
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.feed)
	k.changed()
}

func (k *Keeper) changed() {
	select {
	case k.news <- struct{}{}:
	default: // whoever reads it takes the newest
	}
}

// Use has questions answered at these sockets, in place of those before, which may
// be closed then. There is no process before there are any.
func (k *Keeper) Use(sockets []Socket) {
	k.make()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(sockets) > 0 {
		k.first.Do(func() { close(k.asked) })
	}
	k.sockets = slices.Clone(sockets)
	k.changed()
}

// Used says whether there is a socket.
func (k *Keeper) Used() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.sockets) > 0
}

// numbered names the devices of link-local resolvers by their numbers: a process
// that may open nothing but IP sockets cannot look them up. One that is not there
// has its name still, and is looked up again with the next change.
func numbered(all []netip.AddrPort) []netip.AddrPort {
	all = slices.Clone(all)
	for i, a := range all {
		if a.Addr().Zone() == "" {
			continue
		}
		if device, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
			all[i] = netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(device.Index)), a.Port())
		}
	}
	return all
}

// startTime bounds how long a process may take to answer its first feed.
const startTime = 10 * time.Second

// Run keeps a responder running until ctx is done, and then ends it.
func (k *Keeper) Run(ctx context.Context) error {
	k.make()
	select {
	case <-k.asked:
	case <-ctx.Done():
		return nil
	}
	young := 0 // short lives in a row
	for {
		began := time.Now()
		err := k.live(ctx)
		if ctx.Err() != nil {
			return nil
		}
		lived := time.Since(began)
		if young++; lived >= wellTime {
			young = 1
		}
		k.ended(k.Log, err, lived, young)
		select {
		case <-time.After(pauseAfter(young, cmp.Or(k.pause, restartPause))):
		case <-ctx.Done():
			return nil
		}
	}
}

// live is the life of one process.
func (k *Keeper) live(ctx context.Context) error {
	control, process, err := k.start()
	if err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	defer control.Close()
	ended := make(chan error, 1)
	go func() {
		state, err := process.Wait()
		if err == nil {
			err = errors.New(state.String())
		}
		ended <- err
	}()
	end := func(err error) error {
		_ = process.Kill()
		state := lastWords(control, <-ended)
		if err == nil {
			return state
		}
		return fmt.Errorf("%w: %w", err, state)
	}
	// gofail: var responderStarted struct{}
	if err := k.Started(process.Pid); err != nil {
		k.Log.Warn("record the responder", "err", err)
	}
	if err := control.SetDeadline(time.Now().Add(startTime)); err != nil {
		return end(err)
	}
	told := &told{has: map[uint64]bool{}}
	if err := k.tell(control, told); err != nil {
		return end(fmt.Errorf("tell it the names: %w", err))
	}
	if err := awaitAnswers(control); err != nil {
		return end(err)
	}
	// gofail: var responderServes struct{}
	k.Served()
	well := time.After(wellTime)
	for {
		select {
		case <-k.news:
		case <-well:
			k.well(k.Log)
		case state := <-ended:
			return lastWords(control, state)
		case <-ctx.Done():
			return end(nil)
		}
		if err := control.SetDeadline(time.Now().Add(startTime)); err != nil {
			return end(err)
		}
		if err := k.tell(control, told); err != nil {
			return end(fmt.Errorf("tell it the names: %w", err))
		}
	}
}

func (k *Keeper) start() (*net.UnixConn, *os.Process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer ours.Close()
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	files := []*os.File{null, os.Stderr, os.Stderr, theirs}
	args := []string{os.Args[0], Process, strconv.Itoa(k.UID), strconv.Itoa(k.GID)}
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	control := c.(*net.UnixConn)
	sys := &syscall.SysProcAttr{Setsid: true}
	if k.Cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(k.Cgroup.Fd())
	}
	process, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{Dir: "/", Files: files, Sys: sys, Env: []string{}})
	if err != nil {
		return nil, nil, errors.Join(err, control.Close())
	}
	return control, process, nil
}
