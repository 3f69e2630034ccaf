package tuntap

import (
	"testing"
	"time"
)

func TestPollingIsLearnt(t *testing.T) {
	const (
		window = 50 * time.Microsecond
		near   = 10 * time.Microsecond
		far    = time.Millisecond
	)
	now := time.Now()
	for name, c := range map[string]struct {
		waits []time.Duration
		polls bool
	}{
		"nothing came yet":         {nil, false},
		"a few close packets":      {[]time.Duration{near, near, near}, false},
		"close upon each other":    {[]time.Duration{near, near, near, near}, true},
		"one late packet":          {[]time.Duration{near, near, near, near, far}, false},
		"close again after it":     {[]time.Duration{far, near, near, near, near}, true},
		"now and then":             {[]time.Duration{far, far, far, far, far, far}, false},
		"close, but not in a row":  {[]time.Duration{near, near, near, far, near, near, near}, false},
		"late after a long time":   {append(make([]time.Duration, 1000), far), false},
		"close for a long time":    {make([]time.Duration, 1000), true},
		"exactly the window apart": {[]time.Duration{window, window, window, window}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := waiter{window: window}
			for _, d := range c.waits {
				w.slept(d)
			}
			if got := w.polls(now); got != c.polls {
				t.Errorf("polls: %v, want %v", got, c.polls)
			}
		})
	}
}

func TestPollInVainIsForgivenOnce(t *testing.T) {
	w := waiter{window: 50 * time.Microsecond, credit: trust}
	w.polled(false)
	if now := time.Now(); w.polls(now) {
		t.Error("with little credit it polls again after a poll in vain")
	}
	w.credit = trust
	for range 2 * mostly {
		w.polled(true)
	}
	w.polled(false)
	if !w.polls(time.Now()) {
		t.Error("with much credit it does not poll after one poll in vain")
	}
	w.polled(false)
	if w.polls(time.Now()) {
		t.Error("it polls after two in vain")
	}
}

func TestPollingStopsWhereTheCPUIsWanted(t *testing.T) {
	now := time.Now()
	w := waiter{window: 50 * time.Microsecond, credit: trust}
	if !w.polls(now) {
		t.Fatal("it does not poll at all")
	}
	w.lost(now)
	for range 10 * trust {
		w.slept(0)
	}
	if w.polls(now.Add(calm / 2)) {
		t.Error("it polls again at once")
	}
	if !w.polls(now.Add(2 * calm)) {
		t.Error("it never polls again")
	}
}

func TestPollInVainEndsPolling(t *testing.T) {
	s := newStill(t).r.shards[0]
	s.window, s.credit = time.Microsecond, trust
	if n, err := s.busyPoll(time.Now()); n != 0 || err != nil {
		t.Fatalf("%d events, %v; want none", n, err)
	}
	if s.polls(time.Now()) {
		t.Error("it would poll again")
	}
}

// What comes in heaps is slept for: polling would hand it on in small helpings.
func TestHeapsAreNotPolledFor(t *testing.T) {
	for moved, polls := range map[int]bool{0: true, 1: true, few: true, few + 1: false, 64: false} {
		w := waiter{window: time.Millisecond, credit: trust, moved: moved}
		w.waits()
		if got := w.polls(time.Now()); got != polls {
			t.Errorf("after %d packets: polls %v, want %v", moved, got, polls)
		}
		if w.moved != 0 {
			t.Errorf("after %d packets: %d are left to count", moved, w.moved)
		}
	}
}
