package emperor

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// backoff is the delay before the next start of a vassal that died. The first
// restart comes at once: most deaths are accidents. Deaths of a young app
// double the delay up to the cap; a life of some length clears it.
type backoff struct {
	first, max time.Duration // the second restart's delay; the cap
	young      time.Duration // a life shorter than this is a young death
	flat       bool          // the delay does not grow

	deaths int // young ones in a row
}

func newBackoff(c *Config) backoff {
	b := backoff{
		first: cmp.Or(c.Throttle, 100*time.Millisecond), max: cmp.Or(c.MaxThrottle, time.Minute),
		young: 5 * time.Second, flat: c.NoBlacklist,
	}
	b.max = max(b.max, b.first)
	return b
}

// limit sets the longest delay.
func (b *backoff) limit(most time.Duration) { b.max, b.first = most, min(b.first, most) }

// died returns the delay after a life of that length; a failed start is a
// life of 0. A loyal vassal is back at once, though not more often than once
// in the first delay, whatever it says about itself. The delay has up to a
// quarter of jitter, so that vassals that died together do not start together
// for ever.
func (b *backoff) died(lived time.Duration, loyal bool) time.Duration {
	if loyal {
		b.deaths = 0
		return max(0, b.first-lived)
	}
	b.deaths++
	if b.deaths == 1 && lived > 0 {
		return 0
	}
	d := b.max
	if shift := b.deaths - 2; b.flat {
		d = b.first
	} else if shift < 16 {
		d = min(b.max, b.first<<max(shift, 0))
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// clear forgets the deaths: an operator or a new ini says that all is well.
func (b *backoff) clear() { b.deaths = 0 }

// await ends a vassal's back-off after some time.
func (e *Emperor) await(v *member, delay time.Duration) {
	v.due = time.Now().Add(delay)
	v.timer = time.AfterFunc(delay, func() {
		e.call(func() {
			if v.state == Backoff && e.vassals[v.name] == v {
				e.happen(v, v.asDue())
			}
		})
	})
}
