package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"fiefdom/tuntap"
)

// controlFD is the router's descriptor of the control connection.
const controlFD = 3

// Main is the router process. args are the uid, the gid, the emperor's pid, how
// many threads move packets, and how long they poll, in nanoseconds.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(stderr{}, nil)).With("process", "router")
	if err := run(args, log); err != nil {
		log.Error("router", "err", err)
		return 1
	}
	return 0
}

func run(args []string, log *slog.Logger) error {
	if len(args) != 5 {
		return errors.New("want UID GID PID THREADS POLL; the emperor starts me")
	}
	var numbers [5]int
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
	if err := confine(uid, gid); err != nil {
		return fmt.Errorf("give rights away: %w", err)
	}
	w, err := newWire(os.NewFile(controlFD, "control"))
	if err != nil {
		return err
	}
	s := &server{log: log, wire: w, reports: make(chan outgoing, reportQueue)}
	if s.router, err = tuntap.New(log, s.events(), emperor); err != nil {
		return err
	}
	if err := s.router.Threads(threads); err != nil {
		return err
	}
	s.router.BusyPoll(time.Duration(numbers[4]))
	go s.speak() // both end with the process
	go s.listen()
	go giveBack()
	// TERM lets it close its devices side by side; the kernel's own close at
	// the end of a process takes them one after another.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.router.Run(ctx)
}

// server answers the keeper.
type server struct {
	log     *slog.Logger
	wire    *wire
	router  *tuntap.Router
	reports chan outgoing
}

type outgoing struct {
	report report
	file   *os.File
}

// reportQueue bounds what waits for a slow emperor; more is lost, never
// waited for: no shard may block.
const reportQueue = 16384

func (s *server) report(r report, f *os.File) {
	select {
	case s.reports <- outgoing{r, f}:
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
			if errors.Is(why, tuntap.ErrGoodbye) {
				return // it knows; and told late, it could take that for the loss of the next device
			}
			s.report(report{Closed: &Closing{network, vassal, why.Error()}}, nil)
		},
	}
}

// speak sends the reports. Once the emperor is gone they are only drained.
func (s *server) speak() {
	gone := false
	for o := range s.reports {
		var err error
		switch {
		case gone:
		case o.file != nil:
			var fd int
			if fd, err = descriptor(o.file); err == nil {
				err = s.wire.send(o.report, fd)
			}
		default:
			err = s.wire.send(o.report)
		}
		gone = gone || err != nil
		if o.file != nil {
			_ = o.file.Close()
		}
	}
}

// listen takes the keeper's orders until the emperor is gone.
func (s *server) listen() {
	for {
		var o order
		files, err := s.wire.receive(&o)
		if err != nil {
			closeAll(files)
			s.log.Warn("the emperor is gone; going on without it", "err", err)
			return
		}
		if err := s.obey(&o, files); err != nil {
			s.report(report{Error: err.Error()}, nil)
		}
	}
}

func (s *server) obey(o *order, files []*os.File) error {
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
	}
	return nil
}

func (s *server) add(o *order, files []*os.File) error {
	want := 2
	for _, more := range []bool{o.Stats, o.Gateway} {
		if more {
			want++
		}
	}
	if len(files) != want {
		closeAll(files)
		return fmt.Errorf("network %s came with %d descriptors; want %d", o.Add.Name, len(files), want)
	}
	if o.Stats {
		go serveStats(files[2], s.log, func() (tuntap.NetworkStats, bool) { return s.network(o.Add.Name) })
	}
	d := tuntap.Descriptors{Device: files[0], Listener: files[1]}
	if o.Gateway {
		d.Gateway = files[want-1]
	}
	return s.router.AddNetwork(*o.Add, d)
}

func (s *server) network(name string) (tuntap.NetworkStats, bool) {
	for _, n := range s.router.Snapshot() {
		if n.Name == name {
			return n, true
		}
	}
	return tuntap.NetworkStats{}, false
}
