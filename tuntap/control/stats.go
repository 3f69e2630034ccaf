package control

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"runtime"
	"time"

	"fiefdom/tuntap"
)

// Bounds of the stats server: it tells everyone who may connect, one document
// a connection, and waits for nobody.
const (
	statsTimeout = 2 * time.Second
	statsClients = 16
)

// serveStats is uWSGI's stats server of one network: one JSON document a
// connection, then the end. It runs beside the shards and reads their counters
// without stopping it.
func serveStats(f *os.File, log *slog.Logger, read func() (tuntap.NetworkStats, bool)) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		log.Error("stats server", "err", err)
		return
	}
	defer l.Close()
	slots := make(chan struct{}, statsClients)
	for {
		c, err := l.Accept()
		if err != nil {
			log.Warn("stats server", "err", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		slots <- struct{}{}
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
