package tuntap

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"fiefdom/firewall"
)

// lockedBuffer is a log that a test can read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestDropsAreLoggedNowAndThenWithTheirRule(t *testing.T) {
	var log lockedBuffer
	cfg := native()
	cfg.Out = []firewall.Rule{{Action: firewall.Deny, Dst: single(internet), File: "emperor.ini", Line: 6}}
	w := newWorld(t, cfg, func(r *Router) { r.log = slog.New(slog.NewTextHandler(&log, nil)) })
	end := w.vassal("blog", blog)
	for range 1000 {
		end.Send(t, udp(blog, internet, 9))
	}
	w.dropped("blog", DropRule, 1000)
	w.stop() // writes what waits
	lines := strings.Count(log.String(), "packet dropped")
	want := "network=fief0 reason=rule peer=1 vassal=blog src=10.9.0.7 dst=198.51.100.7 rule=emperor.ini:6 drops=1"
	if lines != 1 || !strings.Contains(log.String(), want) {
		t.Errorf("%d lines for 1000 packets; want one with %q:\n%s", lines, want, log.String())
	}
}

// A log that does not take its lines must not stop the packets.
func TestStuckLogDoesNotStopTheLoop(t *testing.T) {
	stuck := make(chan struct{})
	w := newWorld(t, native(), func(r *Router) { r.log = slog.New(slog.NewTextHandler(writer(func() { <-stuck }), nil)) })
	t.Cleanup(func() { close(stuck) })
	end := w.vassal("blog", blog)
	_ = w.r.shards[0].mail.do(func() error {
		for range 2 * logPending {
			w.r.say(slog.LevelInfo, "one of many lines")
		}
		return nil
	})
	end.Send(t, udp(blog, internet, 9))
	w.host.Receive(t)
}

type writer func()

func (fn writer) Write(p []byte) (int, error) {
	fn()
	return len(p), nil
}
