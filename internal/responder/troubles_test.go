package responder

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.all.String()), "\n")
}

// keep runs a keeper, which has a socket where nobody asks: without any it starts nothing.
func keep(t *testing.T, k *Keeper) *logged {
	t.Helper()
	s := Socket{Addr: netip.AddrPortFrom(server4, Port), UDP: true}
	nettest.NewNS(t).Do(t, func() {
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.Close() })
	k.Use([]Socket{s})
	said := &logged{}
	k.Log, k.GID = slog.New(slog.NewTextHandler(said, nil)), 65521
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return said
}

// A responder that does not stay up is told when that begins and when it ends, and
// is started more and more rarely.
func TestAResponderThatDoesNotStayUp(t *testing.T) {
	t.Parallel()
	var bad atomic.Bool
	bad.Store(true)
	var starts atomic.Int32
	k := &Keeper{UID: 65521, Served: func() {}, pause: time.Millisecond}
	k.Started = func(pid int) error {
		starts.Add(1)
		if bad.Load() {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
		return nil
	}
	said := keep(t, k)
	nettest.Eventually(t, 60*time.Second, "some more starts", func() bool { return starts.Load() > restarts+2 })
	got := said.lines()
	if len(got) != 2 || !strings.Contains(got[0], "responder ended; starting it again") || !strings.Contains(got[1], "does not stay up") || !strings.Contains(got[1], "signal: killed") {
		t.Errorf("the log of %d starts:\n%s", starts.Load(), strings.Join(got, "\n"))
	}
	if why := k.Trouble(); !strings.Contains(why, "signal: killed") {
		t.Errorf("trouble: %q", why)
	}
	bad.Store(false)
	nettest.Eventually(t, 60*time.Second, "it stays up", func() bool { return k.Trouble() == "" })
	if got := said.lines(); len(got) != 3 || !strings.Contains(got[2], "responder answers again") {
		t.Errorf("the log:\n%s", strings.Join(got, "\n"))
	}
}

func TestPauses(t *testing.T) {
	for young, want := range map[int]time.Duration{1: 0, restarts: 0, restarts + 1: restartPause, restarts + 2: 2 * restartPause, 1000000: longestPause} {
		if got := pauseAfter(young, restartPause); got != want {
			t.Errorf("after %d: %v, want %v", young, got, want)
		}
	}
}

// The keeper hears why a process ended, also what only that could know.
func TestLastWords(t *testing.T) {
	for _, c := range []struct{ answers, why, want string }{
		{"", "give rights away: no", "give rights away: no (exit status 1)"},
		{".", "socket: no", "socket: no (exit status 1)"},
		{".", "", "exit status 1"},
		{"", "", "exit status 1"},
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "control")
		control, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		defer control.Close()
		if _, err := unix.Write(fds[1], []byte(c.answers)); err != nil {
			t.Fatal(err)
		}
		if c.why != "" && !sayWhy(fds[1], errors.New(c.why)) {
			t.Error("nobody hears it")
		}
		if err := unix.Close(fds[1]); err != nil { // as it ends
			t.Fatal(err)
		}
		if err := awaitAnswers(control); (err == nil) != (c.answers == ".") {
			t.Errorf("%q: %v", c.answers, err)
		}
		if got := lastWords(control, errors.New("exit status 1")).Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
