package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fiefdom/emperor"
)

// manager is a service manager that only listens, and an emperor that is as it
// is told to be.
type manager struct {
	mu      sync.Mutex
	told    []string // a line each
	pulse   emperor.Pulse
	stands  chan struct{} // the loop, until it is closed; nil: it turns
	answers bool
	fails   error // of what it is told
	n       *notifier
}

func newManager(t *testing.T, watchdog time.Duration) (*manager, context.CancelFunc) {
	m := &manager{answers: true}
	m.n = &notifier{log: slog.New(slog.DiscardHandler), watchdog: watchdog, reloads: make(chan struct{}, 1)}
	m.n.send = func(state string) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told = append(m.told, strings.Split(state, "\n")...)
		return m.fails
	}
	ctx, stop := context.WithCancel(t.Context())
	m.n.begin(ctx, func(ctx context.Context) (emperor.Pulse, error) {
		m.mu.Lock()
		p, stands := m.pulse, m.stands
		m.mu.Unlock()
		if stands != nil {
			select {
			case <-stands:
			case <-ctx.Done():
				return emperor.Pulse{}, ctx.Err()
			}
		}
		return p, nil
	}, func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.answers })
	return m, stop
}

// is changes how the emperor is.
func (m *manager) is(change func()) { m.mu.Lock(); defer m.mu.Unlock(); change() }

// hear is what was told within a time.
func (m *manager) hear(within time.Duration) []string {
	m.is(func() { m.told = nil })
	time.Sleep(within)
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

func TestNotifyTellsStartReloadAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, stop := newManager(t, 0)
		m.is(func() { m.pulse = emperor.Pulse{Reading: true} })
		if told := m.hear(time.Minute); slices.Contains(told, "READY=1") || !slices.Contains(told, "EXTEND_TIMEOUT_USEC=30000000") {
			t.Errorf("while it reads its inis: %q", told)
		}
		m.is(func() {
			m.answers = false
			m.pulse = emperor.Pulse{States: map[emperor.State]int{emperor.Running: 2, emperor.Invalid: 1}}
		})
		if told := m.hear(time.Minute); slices.Contains(told, "READY=1") {
			t.Errorf("before it answers: %q", told)
		}
		m.is(func() { m.answers = true })
		if told := m.hear(time.Minute); !slices.Equal(told, []string{"READY=1"}) {
			t.Errorf("when it answers: %q", told)
		}
		m.is(func() { m.pulse.States = map[emperor.State]int{emperor.Running: 1, emperor.Invalid: 1} })
		if told := m.hear(time.Minute); !slices.Equal(told, []string{"STATUS=vassals: 1 running, 1 invalid"}) {
			t.Errorf("when a vassal is gone: %q", told)
		}
		m.is(func() { m.pulse.Reading = true })
		m.n.reloading()
		m.n.reloading()
		if told := m.hear(time.Second); len(told) < 2 || told[0] != "RELOADING=1" || !strings.HasPrefix(told[1], "MONOTONIC_USEC=") || slices.Contains(told, "READY=1") {
			t.Errorf("at a reload: %q", told)
		}
		m.is(func() { m.pulse.Reading = false })
		if told := m.hear(time.Minute); !slices.Equal(told, []string{"READY=1"}) {
			t.Errorf("after the reload: %q", told)
		}
		stop()
		if told := m.hear(time.Minute); len(told) < 10 || told[0] != "STOPPING=1" || slices.Contains(told, "READY=1") ||
			told[1] != "EXTEND_TIMEOUT_USEC=30000000" || told[len(told)-1] != told[1] {
			t.Errorf("at the stop: %q", told)
		}
		m.n.end()
	})
}

// The watchdog is fed as often as it wants, and not once while the loop stands.
func TestNotifyFeedsTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, stop := newManager(t, 3*time.Second)
		m.hear(time.Second)
		if told := m.hear(time.Minute); len(told) < 59 || len(told) > 61 || slices.ContainsFunc(told, func(s string) bool { return s != "WATCHDOG=1" }) {
			t.Errorf("in a minute: %d messages, %q", len(told), told)
		}
		m.is(func() { m.stands = make(chan struct{}) })
		m.hear(time.Second) // it stands within the next look
		if told := m.hear(time.Hour); len(told) != 0 {
			t.Errorf("from a loop that stands: %q", told)
		}
		close(m.stands)
		if told := m.hear(time.Second); len(told) == 0 {
			t.Error("nothing from a loop that turns again")
		}
		stop()
		if told := m.hear(time.Minute); len(told) < 59 {
			t.Errorf("while it stops: %q", told)
		}
		m.n.end()
	})
}

// What a service manager wants is read once, and not left to anybody else.
func TestNotifierIsTakenFromTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, socket, usec, pid string
		listens                 bool
		watchdog                time.Duration
	}{
		{"nobody", "", "", "", false, 0},
		{"no watchdog", "/run/x", "", "", true, 0},
		{"a watchdog", "@x", "2000000", strconv.Itoa(os.Getpid()), true, 2 * time.Second},
		{"somebody else's watchdog", "/run/x", "2000000", "1", true, 0},
		{"a watchdog that is no number", "/run/x", "soon", "", true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", tt.socket)
			t.Setenv("WATCHDOG_USEC", tt.usec)
			t.Setenv("WATCHDOG_PID", tt.pid)
			n := takeNotifier(slog.New(slog.DiscardHandler))
			if (n.send != nil) != tt.listens || n.watchdog != tt.watchdog {
				t.Errorf("listens %v, watchdog %v", n.send != nil, n.watchdog)
			}
			for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
				if text, ok := os.LookupEnv(name); ok {
					t.Errorf("%s=%s is left", name, text)
				}
			}
		})
	}
}

// A service manager that went does not hold anything up.
func TestNotifyWithoutAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, stop := newManager(t, time.Second)
		m.is(func() { m.fails = errors.New("nobody there") })
		if told := m.hear(time.Minute); len(told) < 59 {
			t.Errorf("tried %d times in a minute", len(told))
		}
		stop()
		m.n.end()
	})
}
