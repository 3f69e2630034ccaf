package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"time"

	"fiefdom/internal/bounded"
	"fiefdom/tuntap"
)

// Bounds of the stats server: it tells everyone who may connect, one document
// a connection, and waits for nobody.
const (
	statsTimeout = 2 * time.Second
	statsClients = 16
)

// statsServer is uWSGI's stats server of one network: one JSON document a
// connection, then the end. It runs beside the shards and reads their counters
// without stopping it.
type statsServer struct {
	file     *os.File // the socket, for the next emperor
	listener net.Listener
}

// newStatsServer serves by the listening socket f, which it owns, until close.
func newStatsServer(f *os.File, log *slog.Logger, read func() (tuntap.NetworkStats, bool)) (*statsServer, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stats server: %w", err), f.Close())
	}
	s := &statsServer{file: f, listener: l}
	go s.serve(log, read) // ends with the listener
	return s, nil
}

func (s *statsServer) close() error { return errors.Join(s.listener.Close(), s.file.Close()) }

func (s *statsServer) serve(log *slog.Logger, read func() (tuntap.NetworkStats, bool)) {
	bound, slots := bounded.Listen(s.listener, statsClients), make(chan struct{}, statsClients)
	for {
		c, err := bound.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("stats server", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		slots <- struct{}{} // not for long: whoever does not read makes room
		go func() {
			defer func() { <-slots }()
			defer c.Close()
			tellStats(c, read)
		}()
	}
}

func tellStats(c net.Conn, read func() (tuntap.NetworkStats, bool)) {
	s, ok := read()
	if !ok || c.SetDeadline(time.Now().Add(statsTimeout)) != nil {
		return
	}
	e := json.NewEncoder(c)
	e.SetIndent("", "\t")
	_ = e.Encode(s.UWSGI(tuntap.UWSGIStats{
		Version: "fiefdom", PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Cwd: "/", Goroutines: runtime.NumGoroutine(),
	}))
}
