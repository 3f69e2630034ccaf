package responder

import (
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// What one asker may have at most, so that the others have theirs.
const (
	askRate  = 2000 // questions a second; more are not heard
	askBurst = 2000
	askWaits = 64  // questions that wait for a resolver
	askConns = 16  // TCP connections
	askShare = 4   // of these, that each has when others have taken all but his
	allWaits = 512 // of all askers together, those shares aside
	maxWaits = 2048
	allConns = 1024
	maxAsker = 16384 // that are known at a time
	lookRate = 200   // looks a second at whether a stranger is the host
)

// account is what one asker has taken.
type account struct {
	rate  *rate.Limiter
	waits atomic.Int32
	conns atomic.Int32
}

// askers are the accounts.
type askers struct {
	all          *lru.Cache[Asker, *account]
	waits, conns atomic.Int32
	looks        *rate.Limiter
}

func newAskers() *askers {
	all, err := lru.New[Asker, *account](maxAsker)
	if err != nil {
		panic(err) // a size below one
	}
	return &askers{all: all, looks: rate.NewLimiter(lookRate, lookRate)}
}

func (s *askers) of(a Asker) *account {
	if found, ok := s.all.Get(a); ok {
		return found
	}
	made := &account{rate: rate.NewLimiter(askRate, askBurst)}
	if before, ok, _ := s.all.PeekOrAdd(a, made); ok {
		return before
	}
	return made
}

// hear says whether a question is within the asker's budget.
func (s *askers) hear(a Asker) bool { return s.of(a).rate.Allow() }

// wait takes a place among those that wait for a resolver.
func (s *askers) wait(a Asker) (release func(), ok bool) {
	own := s.of(a)
	release = func() { own.waits.Add(-1); s.waits.Add(-1) }
	o, all := own.waits.Add(1), s.waits.Add(1)
	if o <= askWaits && all <= allWaits || o <= askShare && all <= maxWaits {
		return release, true
	}
	release()
	return nil, false
}

// connect takes a place among the connections.
func (s *askers) connect(a Asker) (release func(), ok bool) {
	own := s.of(a)
	return take(&own.conns, askConns, &s.conns, allConns)
}

func take(own *atomic.Int32, most int32, all *atomic.Int32, mostOfAll int32) (release func(), ok bool) {
	release = func() { own.Add(-1); all.Add(-1) }
	if o, a := own.Add(1), all.Add(1); o > most || a > mostOfAll {
		release()
		return nil, false
	}
	return release, true
}
