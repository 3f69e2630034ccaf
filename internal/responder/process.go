package responder

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"fiefdom/internal/confine"
)

// Process is the word on the command line that makes our binary the responder.
const Process = "responder"

// controlFD is the connection to the keeper, by which the sockets come.
const controlFD = 3

// Bounds of what the process takes of the machine, whoever asks however much.
const (
	maxThreads = 2
	softMemory = 64 << 20 // where the collector begins to work for every byte
)

// Main is the responder process. args are its uid and gid.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(confine.Stderr{}, nil)).With("process", Process)
	keeper, err := unix.FcntlInt(controlFD, unix.F_DUPFD_CLOEXEC, controlFD)
	if err == nil {
		err = run(args)
	}
	if err != nil {
		if !sayWhy(keeper, err) {
			log.Error("responder", "err", err)
		}
		return 1
	}
	return 0
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("want UID GID; the emperor starts me")
	}
	uid, uerr := strconv.Atoi(args[0])
	gid, gerr := strconv.Atoi(args[1])
	if err := errors.Join(uerr, gerr); err != nil {
		return err
	}
	runtime.GOMAXPROCS(min(maxThreads, runtime.GOMAXPROCS(0)))
	debug.SetMemoryLimit(softMemory)
	// Standard error may be a terminal or a pipe that goes away with the emperor.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	if err := confine.Process(uid, gid, confine.Dials); err != nil {
		return fmt.Errorf("give rights away: %w", err)
	}
	f := os.NewFile(controlFD, "control")
	control, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	conn, ok := control.(*net.UnixConn)
	if !ok {
		return errors.New("the connection to the emperor is none of a unix socket")
	}
	s := &server{askers: newAskers(), forward: &forwarder{cache: newCache(), exchange: exchange}}
	told, where := newOrders(conn), newPlaces()
	if err := s.take(told, where); err != nil {
		return fmt.Errorf("wait for the names: %w", err)
	}
	if _, err := control.Write([]byte{answersByte}); err != nil {
		return err
	}
	go func() { // ends with the emperor; nobody else does
		for s.take(told, where) == nil {
		}
		_ = control.Close()
	}()
	return <-where.failed
}

// take puts the next order in force.
func (s *server) take(told *orders, where *places) error {
	o, brought, err := told.next()
	if errors.Is(err, io.EOF) {
		err = errors.New("the emperor went away")
	}
	if err != nil {
		return err
	}
	s.use(&o.Feed)
	return where.use(s, o, brought)
}

func (s *server) use(f *Feed) {
	z := newZone(f)
	s.zone.Store(z)
	s.forward.use(f.Resolvers, z.own)
}
