package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"fiefdom/internal/confine"
	"fiefdom/tuntap"
)

// The router's descriptors: the control connection, and the socket at which the
// next emperor knocks.
const (
	controlFD = 3
	doorFD    = 4
)

// Main is the router process. args are the uid, the gid, the emperor's pid, how
// many threads move packets, how long they poll, in nanoseconds, and 1 if there
// is a door.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(confine.Stderr{}, nil)).With("process", "router")
	if err := run(args, log); err != nil {
		log.Error("router", "err", err)
		return 1
	}
	return 0
}

func run(args []string, log *slog.Logger) error {
	if len(args) != 6 {
		return errors.New("want UID GID PID THREADS POLL DOOR; the emperor starts me")
	}
	var numbers [6]int
	for i, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	uid, gid, emperor, threads := numbers[0], numbers[1], numbers[2], numbers[3]
	// The threads that move packets must never wait for each other's turn in
	// Go's scheduler, nor the control connection for theirs.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), threads+1))
	// Standard error may be a terminal or a pipe that goes away with the emperor.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	if err := confine.Process(uid, gid, confine.Given); err != nil {
		return fmt.Errorf("give rights away: %w", err)
	}
	w, err := newWire(os.NewFile(controlFD, "control"))
	if err != nil {
		return err
	}
	// TERM lets it close its devices side by side; the kernel's own close at
	// the end of a process takes them one after another.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	made := told{Threads: threads, BusyPoll: time.Duration(numbers[4])}
	s := &server{log: log, made: made, quit: stop, stats: map[string]*statsServer{}, reports: make(chan outgoing, reportQueue)}
	if s.router, err = tuntap.New(log, s.events(), emperor); err != nil {
		return err
	}
	if err := s.router.Threads(threads); err != nil {
		return err
	}
	s.router.BusyPoll(made.BusyPoll)
	go s.speak() // all end with the process
	go giveBack()
	over := s.converse(w)
	if numbers[5] == 1 {
		door, err := listener(doorFD)
		if err != nil {
			return err
		}
		go s.openDoor(door, over)
	}
	return s.router.Run(ctx)
}

// listener makes a listener of an inherited descriptor.
func listener(fd uintptr) (*net.UnixListener, error) {
	f := os.NewFile(fd, "door")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the door: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("the door is no unix socket"), l.Close())
	}
	return u, nil
}

// server answers the keeper.
type server struct {
	log     *slog.Logger
	made    told // how it was started
	quit    func()
	wire    atomic.Pointer[wire] // to the emperor; nil: there is none
	router  *tuntap.Router
	stats   map[string]*statsServer // by network; of whoever listens to the emperor
	reports chan outgoing
}

type outgoing struct {
	to     *wire
	report report
	file   *os.File
}

// reportQueue bounds what waits for a slow emperor; more is lost, never
// waited for: no shard may block.
const reportQueue = 16384

func (s *server) report(r report, f *os.File) {
	select {
	case s.reports <- outgoing{s.wire.Load(), r, f}:
	default:
		if f != nil {
			_ = f.Close()
		}
	}
}

func (s *server) events() tuntap.Events {
	return tuntap.Events{
		Registered: func(network, vassal string, addr netip.Addr) {
			s.report(report{Registered: &Registration{network, vassal, addr}}, nil)
		},
		Refused: func(network, vassal string, addr netip.Addr, reason tuntap.Reason, holder string) {
			s.report(report{Refused: &Refusal{Registration{network, vassal, addr}, reason, holder}}, nil)
		},
		Spoofed: func(network, vassal string, src netip.Addr) {
			s.report(report{Spoofed: &Registration{network, vassal, src}}, nil)
		},
		Identify: func(conn uint64, pidfd *os.File) {
			s.report(report{Identify: conn}, pidfd)
		},
		Closed: func(network, vassal string, why error) {
			if errors.Is(why, tuntap.ErrGoodbye) || errors.Is(why, tuntap.ErrUnclaimed) {
				return // it knows; and told late, it could take that for the loss of the next device
			}
			s.report(report{Closed: &Closing{network, vassal, why.Error()}}, nil)
		},
	}
}

// speak sends the reports. Those to an emperor who is gone are nobody's. (A
// connection that could not take one is closed, and its listener hears that.)
func (s *server) speak() {
	for o := range s.reports {
		if o.to != nil && o.to == s.wire.Load() {
			if err := o.send(); err != nil {
				s.log.Debug("report", "err", err)
			}
		}
		if o.file != nil {
			_ = o.file.Close()
		}
	}
}

func (o *outgoing) send() error {
	if o.file == nil {
		return o.to.send(o.report)
	}
	fd, err := descriptor(o.file)
	if err != nil {
		return err
	}
	return o.to.send(o.report, fd)
}

// listen takes the keeper's orders until the emperor is gone.
func (s *server) listen(w *wire) {
	for {
		var o order
		files, err := w.receive(&o)
		if err != nil {
			closeAll(files)
			s.log.Warn("the emperor is gone; going on without it", "err", err)
			return
		}
		if err := s.obey(w, &o, files); err != nil {
			s.report(report{Error: err.Error()}, nil)
		}
	}
}

func (s *server) obey(w *wire, o *order, files []*os.File) error {
	if o.Add == nil && o.Ask == nil {
		closeAll(files)
	}
	switch {
	case o.Add != nil:
		return s.add(o, files)
	case o.Update != nil:
		return s.router.Update(*o.Update)
	case o.Serve:
		s.router.Serve()
		s.report(report{Serving: true}, nil)
	case o.Identified != nil:
		s.router.Identified(o.Identified.Conn, o.Identified.Vassal)
	case o.Ask != nil:
		s.report(report{Answer: s.answer(o.Ask, files)}, nil)
	case o.Snapshot != 0:
		s.report(report{Snapshot: &snapshot{ID: o.Snapshot, Networks: s.router.Snapshot()}}, nil)
	case o.Tell:
		return s.tell(w)
	case o.Remove != "":
		return s.remove(o.Remove)
	case o.Settled:
		s.router.Settle()
	}
	return nil
}

func (s *server) add(o *order, files []*os.File) error {
	want := descriptorsOf(o.Stats, o.Gateway)
	if len(files) != want {
		closeAll(files)
		return fmt.Errorf("network %s came with %d descriptors; want %d", o.Add.Name, len(files), want)
	}
	d := tuntap.Descriptors{Device: files[0], Listener: files[1]}
	if o.Gateway {
		d.Gateway = files[want-1]
	}
	err := s.router.AddNetwork(*o.Add, d)
	if !o.Stats {
		return err
	}
	if err != nil {
		return errors.Join(err, files[2].Close())
	}
	s.stats[o.Add.Name], err = newStatsServer(files[2], s.log, func() (tuntap.NetworkStats, bool) { return s.network(o.Add.Name) })
	return err
}

func (s *server) remove(name string) error {
	err := s.router.RemoveNetwork(name)
	if stats := s.stats[name]; stats != nil {
		delete(s.stats, name)
		err = errors.Join(err, stats.close())
	}
	if err == nil {
		s.report(report{Removed: name}, nil)
	}
	return err
}

func (s *server) network(name string) (tuntap.NetworkStats, bool) {
	for _, n := range s.router.Snapshot() {
		if n.Name == name {
			return n, true
		}
	}
	return tuntap.NetworkStats{}, false
}
