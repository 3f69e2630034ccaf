package emperor

import (
	"math/rand/v2"
	"time"
)

// backoff is the delay before the next start of a vassal that died. The first
// restart comes at once: most deaths are accidents. Deaths of a young app
// double the delay up to the cap; a life of some length clears it.
type backoff struct {
	first, max time.Duration // the second restart's delay; the cap
	young      time.Duration // a life shorter than this is a young death

	deaths int // young ones in a row
}

func newBackoff() backoff {
	return backoff{first: 100 * time.Millisecond, max: time.Minute, young: 5 * time.Second}
}

// died returns the delay after a life of that length; a failed start is a
// life of 0. The delay has up to a quarter of jitter, so that vassals that
// died together do not start together for ever.
func (b *backoff) died(lived time.Duration) time.Duration {
	if lived >= b.young {
		b.deaths = 0
		return 0
	}
	b.deaths++
	if b.deaths == 1 && lived > 0 {
		return 0
	}
	d := b.max
	if shift := b.deaths - 2; shift < 16 {
		d = min(b.max, b.first<<max(shift, 0))
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// clear forgets the deaths: an operator or a new ini says that all is well.
func (b *backoff) clear() { b.deaths = 0 }
