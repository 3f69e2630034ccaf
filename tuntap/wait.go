package tuntap

import (
	"runtime"
	"time"
)

const (
	trust  = 4                      // credit with which a shard polls: so many short waits
	mostly = 16                     // the most credit
	vain   = 8                      // that a poll in vain costs
	few    = 4                      // packets between two waits; with more, sleeping gathers them
	stolen = time.Millisecond       // between two looks: somebody else had a slice of the CPU
	calm   = 250 * time.Millisecond // without polling after that
)

// waiter decides how a shard waits for packets. To be woken on a CPU that
// sleeps takes longer than all that a router does with a packet (20 to 30 µs in
// a virtual machine), so a shard whose packets come close upon each other polls
// for the next one instead. It learns from the waits that it slept through
// whether polling would have paid: what comes now and then is never polled for,
// nor what comes in heaps. Where somebody else wants the CPU, polling stops: it would use up
// the shard's share, and the next packet would wait for a whole slice of the other.
type waiter struct {
	window time.Duration // how long to poll; 0: never
	credit int           // points: one for each wait that was shorter than the window
	quiet  time.Time     // no polling before
	moved  int           // packets since the last wait
}

// polls says whether to poll in a wait that begins now.
func (w *waiter) polls(now time.Time) bool { return w.credit >= trust && now.After(w.quiet) }

// slept learns from a wait that was slept through.
func (w *waiter) slept(d time.Duration) {
	if d < w.window {
		w.credit = min(w.credit+1, mostly)
	} else {
		w.credit = 0
	}
}

// waits is told that a wait begins. Where many packets came since the last one,
// polling would only cut them into smaller helpings.
func (w *waiter) waits() {
	if w.moved > few {
		w.credit = 0
	}
	w.moved = 0
}

// polled learns from a poll: one in vain among many that were not costs less
// than to sleep until the next packets have earned the credit again.
func (w *waiter) polled(paid bool) {
	if paid {
		w.credit = min(w.credit+1, mostly)
	} else {
		w.credit = max(w.credit-vain, 0)
	}
}

// lost says that somebody else took the CPU during a poll.
func (w *waiter) lost(now time.Time) {
	w.credit, w.quiet = 0, now.Add(calm)
}

// wait returns how many events there are.
func (s *shard) wait() (int, error) {
	n, err := s.poll.look()
	if n > 0 || err != nil {
		s.endRest(s.now - restTime.Nanoseconds())
		return n, err
	}
	if len(s.resting) > 0 {
		return s.nap()
	}
	if s.window == 0 {
		return s.poll.wait(s.timeout())
	}
	began := time.Now()
	s.waits()
	if s.polls(began) {
		if n, err := s.busyPoll(began); n > 0 || err != nil {
			return n, err
		}
		return s.poll.wait(s.timeout()) // from this one it has learnt
	}
	n, err = s.poll.wait(s.timeout())
	s.slept(time.Since(began))
	return n, err
}

// busyPoll looks for events until the window is over.
func (s *shard) busyPoll(began time.Time) (int, error) {
	for spent := time.Duration(0); spent < s.window; {
		n, err := s.poll.look()
		before := spent
		spent = time.Since(began)
		if spent-before > stolen {
			s.lost(began.Add(spent))
			return n, err
		}
		if n > 0 || err != nil {
			s.polled(true)
			return n, err
		}
	}
	s.polled(false)
	return 0, nil
}

// BusyPoll sets how long a thread polls for the next packet before it sleeps, at
// most and where polling pays; 0, as it is without: never. On a machine with
// one CPU nothing could come meanwhile, so it never does there. Call it after
// Threads and before Run.
func (r *Router) BusyPoll(window time.Duration) {
	if runtime.NumCPU() == 1 {
		window = 0
	}
	for _, s := range r.shards {
		s.window = window
	}
}
