package emperor

import "time"

// cronClock turns readings of the wall clock into the minutes that jobs are
// due for. It thinks in civil time, what a clock on the wall shows: jobs are
// written in it, and it may jump, by summer time, by an operator, or because
// the machine slept.
type cronClock struct {
	last time.Time // the minute that was looked at last
	high time.Time // the latest minute of all
}

// A jump up to this size is summer time, a nap or a late timer: what fell into
// it is made up for, once. After a larger one the clock is taken as new.
const cronJump = 3 * time.Hour

// span is the minutes after from, up to to.
type span struct{ from, to time.Time }

// any says whether a minute of the span matches.
func (s span) any(matches func(time.Time) bool) bool {
	for t := s.from.Add(time.Minute); !t.After(s.to); t = t.Add(time.Minute) {
		if matches(t) {
			return true
		}
	}
	return false
}

// advance takes the time and returns the minutes that are new: for jobs at
// any hour, and for those that name hours. These do not run again when the
// clock shows an hour twice.
func (c *cronClock) advance(now time.Time) (every, fixed span) {
	civil := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), 0, 0, time.UTC)
	this := span{civil.Add(-time.Minute), civil}
	last, high := c.last, c.high
	c.last, c.high = civil, civil
	switch {
	case last.IsZero() || civil.After(last.Add(cronJump)) || civil.Before(last.Add(-cronJump)):
		return this, this
	case civil.Before(last): // a part of the clock's face for the second time
		c.high = high
		return this, span{high, civil}
	case civil.Before(high):
		c.high = high
	}
	return span{last, civil}, span{high, civil}
}

// untilMinute is the time until the clock's next minute.
func untilMinute(now time.Time) time.Duration {
	return now.Truncate(time.Minute).Add(time.Minute).Sub(now)
}
