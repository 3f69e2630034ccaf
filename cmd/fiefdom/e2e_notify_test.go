package main

import (
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// managed listens as a service manager on a socket of the world, and collects
// what it is told, a line each.
type managed struct {
	mu   sync.Mutex
	told []string
}

// manage has the realm's emperor, which is not started yet, tell it to a socket.
func (r *realm) manage(socket string) *managed {
	r.t.Helper()
	m := &managed{}
	var c *net.UnixConn
	r.Host.Do(r.t, func() { // names that are no paths are a network namespace's
		path := socket
		if !strings.HasPrefix(path, "@") {
			path = r.Path(path)
		}
		var err error
		if c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
			r.t.Fatal(err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, strings.Split(string(b[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
	r.t.Cleanup(func() { c.Close(); <-done })
	r.environ = append(r.environ, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=1000000")
	return m
}

// count is how often it was told something that begins so.
func (m *managed) count(line string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	count := 0
	for _, told := range m.told {
		if strings.HasPrefix(told, line) {
			count++
		}
	}
	return count
}

// hears waits until it was told something so often.
func (m *managed) hears(t *testing.T, line string, times int) {
	t.Helper()
	nettest.Eventually(t, patience, "the service manager is told "+line, func() bool { return m.count(line) >= times })
}

func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	for _, socket := range []string{"/run/t/notify", "@fiefdom/notify"} {
		t.Run(socket, func(t *testing.T) {
			t.Parallel()
			r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
			m := r.manage(socket)
			r.drop("blog", agentIni)
			r.drop("bad", "[uwsgi]\ncommand = 'a\n")
			r.before = r.Snapshot(t)
			r.launch()
			m.hears(t, "READY=1", 1)
			// Ready means that it answers, and that what it found has begun.
			all, err := r.api.List(t.Context())
			if err != nil || len(all) != 2 || all[0].State != emperor.Invalid || all[1].State != emperor.Starting && all[1].State != emperor.Running {
				t.Errorf("when it was ready: %+v, %v", all, err)
			}
			blog := r.reach("blog")
			m.hears(t, "STATUS=vassals: 1 running, 1 invalid", 1)
			m.hears(t, "WATCHDOG=1", 3)
			for name := range strings.SplitSeq(r.proc(blog.PID, "environ"), "\x00") {
				if strings.HasPrefix(name, "NOTIFY_SOCKET=") || strings.HasPrefix(name, "WATCHDOG_") {
					t.Errorf("the vassal has the emperor's %s", name)
				}
			}

			if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			m.hears(t, "RELOADING=1", 1)
			m.hears(t, "READY=1", 2)
			r.await("blog", "is a new one", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != blog.PID })
			r.stop(syscall.SIGTERM)
			m.hears(t, "STOPPING=1", 1)
			m.mu.Lock()
			defer m.mu.Unlock()
			ready := slices.Index(m.told, "READY=1")
			reload := slices.Index(m.told, "RELOADING=1")
			stop := slices.Index(m.told, "STOPPING=1")
			if ready > reload || reload > stop || slices.Contains(m.told[stop:], "READY=1") {
				t.Errorf("told %q", m.told)
			}
		})
	}
}
