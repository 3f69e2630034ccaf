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

	deaths int       // young ones in a row
	told   time.Time // when the log heard of one last
}

// defaultMaxThrottle is uWSGI's: who dies at once is started 16 times in the
// first ten minutes at most.
const defaultMaxThrottle = 3 * time.Minute

func newBackoff(c *Config) backoff {
	b := backoff{
		first: cmp.Or(c.Throttle, 100*time.Millisecond), max: cmp.Or(c.MaxThrottle, defaultMaxThrottle),
		young: 5 * time.Second, flat: c.NoBlacklist,
	}
	b.max = max(b.max, b.first)
	if b.flat {
		b.max = b.first
	}
	return b
}

// limit sets the longest delay.
func (b *backoff) limit(most time.Duration) { b.max, b.first = most, min(b.first, most) }

// died returns the delay after a life of that length; a failed start is a
// life of 0. A loyal vassal is back at once, though not more often than once
// in the first delay, whatever it says about itself. A delay that has grown has
// jitter, up to a quarter more, or at the cap up to a fifth less: vassals that
// died together do not start together for ever, and none waits less than the
// first delay or more than the cap.
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
	if shift := b.deaths - 2; shift < 16 {
		d = min(b.max, b.first<<max(shift, 0))
	}
	most := min(b.max, d+d/4)
	least := min(max(b.first, most-most/5), most)
	return least + rand.N(most-least+1)
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

// A crash loop is told death by death while it is new, then now and then.
const (
	toldDeaths   = 5
	tellInterval = 10 * time.Minute
)

// looping says that the deaths are so many in a row that each by itself is no
// news.
func (b *backoff) looping() bool { return b.deaths > toldDeaths }

// tells says whether the log shall hear of a death.
func (b *backoff) tells(now time.Time) bool {
	if b.looping() && now.Sub(b.told) < tellInterval {
		return false
	}
	b.told = now
	return true
}
