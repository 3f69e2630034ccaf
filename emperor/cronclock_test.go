package emperor

import (
	"slices"
	"testing"
	"time"
	_ "time/tzdata"

	"fiefdom/vassal"
)

// How often jobs run while the clock shows what it shows.
func TestCronClock(t *testing.T) {
	rome, err := time.LoadLocation("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time {
		t.Helper()
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when.In(rome)
	}
	// through are readings every minute.
	through := func(from, to string) (all []time.Time) {
		for when := at(from); !when.After(at(to)); when = when.Add(time.Minute) {
			all = append(all, when)
		}
		return all
	}
	daily := vassal.Cron{Minute: 30, Hour: 2, Day: -1, Month: -1, Week: -1}
	hourly := vassal.Cron{Minute: 30, Hour: -1, Day: -1, Month: -1, Week: -1}
	every := vassal.Cron{Minute: -1, Hour: -1, Day: -1, Month: -1, Week: -1}
	for _, c := range []struct {
		name                  string
		readings              []time.Time
		daily, hourly, always int
	}{
		{"an ordinary night", through("2026-11-21T00:00:00+01:00", "2026-11-21T05:00:00+01:00"), 1, 5, 301},
		{"the minute of the start counts", through("2026-11-21T02:30:40+01:00", "2026-11-21T02:30:50+01:00"), 1, 1, 1},
		{"looked at twice", []time.Time{at("2026-11-21T02:30:01+01:00"), at("2026-11-21T02:30:59+01:00")}, 1, 1, 1},
		{"into summer time", through("2026-03-29T01:00:00+01:00", "2026-03-29T05:00:00+02:00"), 1, 4, 181},
		{"out of summer time", through("2026-10-25T01:00:00+02:00", "2026-10-25T05:00:00+01:00"), 1, 5, 301},
		{"a late timer", []time.Time{at("2026-11-21T02:28:00+01:00"), at("2026-11-21T02:33:00+01:00")}, 1, 1, 2},
		{"a nap", []time.Time{at("2026-11-21T01:00:00+01:00"), at("2026-11-21T03:45:00+01:00")}, 1, 1, 2},
		{"a long sleep", []time.Time{at("2026-11-21T01:00:00+01:00"), at("2026-11-24T07:45:00+01:00")}, 0, 0, 2},
		{"set back an hour", slices.Concat(through("2026-11-21T02:00:00+01:00", "2026-11-21T02:40:00+01:00"), through("2026-11-21T01:40:00+01:00", "2026-11-21T03:00:00+01:00")), 1, 2, 122},
		{"set back a day", slices.Concat(through("2026-11-21T02:00:00+01:00", "2026-11-21T02:40:00+01:00"), through("2026-11-20T02:20:00+01:00", "2026-11-20T02:40:00+01:00")), 2, 2, 62},
	} {
		t.Run(c.name, func(t *testing.T) {
			var clock cronClock
			var gotDaily, gotHourly, gotAlways int
			for _, now := range c.readings {
				any, fixed := clock.advance(now)
				for _, job := range []struct {
					cron *vassal.Cron
					in   span
					ran  *int
				}{{&daily, fixed, &gotDaily}, {&hourly, any, &gotHourly}, {&every, any, &gotAlways}} {
					if job.in.any(job.cron.Matches) {
						*job.ran++
					}
				}
			}
			if gotDaily != c.daily || gotHourly != c.hourly || gotAlways != c.always {
				t.Errorf("daily %d, hourly %d, always %d; want %d, %d, %d", gotDaily, gotHourly, gotAlways, c.daily, c.hourly, c.always)
			}
		})
	}
}

func TestUntilMinute(t *testing.T) {
	now := time.Date(2026, 11, 21, 2, 6, 59, 999_000_000, time.UTC)
	if d := untilMinute(now); d != time.Millisecond {
		t.Errorf("%v", d)
	}
	if d := untilMinute(now.Truncate(time.Minute)); d != time.Minute {
		t.Errorf("on the dot: %v", d)
	}
}
