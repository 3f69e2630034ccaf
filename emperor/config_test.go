package emperor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

func TestRouterThreadsByDefault(t *testing.T) {
	for cpus, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 7: 3, 8: 4, 128: 4} {
		if got := routerThreads(cpus); got != want {
			t.Errorf("%d CPUs: %d threads; want %d", cpus, got, want)
		}
	}
}

func TestRouterThreads(t *testing.T) {
	for value, want := range map[string]int{"1": 1, "4": 4, "64": 64, "0": 0, "-1": 0, "65": 0, "four": 0, "": 0, "1.5": 0} {
		c := new(Config)
		err := setThreads(c, ini.Pair{Key: "router-threads", Value: value})
		if (err == nil) != (want > 0) || c.Threads != want {
			t.Errorf("%q: %d threads, %v; want %d", value, c.Threads, err, want)
		}
		if text := fmt.Sprintf("router-threads = %s: want a number from 1 to 64", value); err != nil && err.Error() != text {
			t.Errorf("%q: %v; want %s", value, err, text)
		}
	}
}

func TestRouterBusyPoll(t *testing.T) {
	const never = -1
	for value, want := range map[string]time.Duration{
		"0": 0, "50us": 50 * time.Microsecond, "1ms": time.Millisecond, "0.00005": 50 * time.Microsecond,
		"50": never, "1001us": never, "-1us": never, "": never, "on": never,
	} {
		c := &Config{BusyPoll: never}
		err := setBusyPoll(c, ini.Pair{Key: "router-busy-poll", Value: value})
		if (err == nil) != (want != never) || c.BusyPoll != want {
			t.Errorf("%q: %v, %v; want %v", value, c.BusyPoll, err, want)
		}
		if text := fmt.Sprintf("router-busy-poll = %s: want a time up to 1ms such as 50us, or 0", value); err != nil && err.Error() != text {
			t.Errorf("%q: %v; want %s", value, err, text)
		}
	}
}

func TestProtocolOptions(t *testing.T) {
	type got = func(c *Config) any
	for text, tc := range map[string]struct {
		got  got
		want any // nil: an error
	}{
		"emperor-throttle = 500":          {func(c *Config) any { return c.Throttle }, 500 * time.Millisecond},
		"emperor-throttle = 2s":           {func(c *Config) any { return c.Throttle }, 2 * time.Second},
		"emperor-throttle = 0":            {func(c *Config) any { return c.Throttle }, time.Millisecond},
		"emperor-throttle = -1":           {},
		"emperor-throttle = 86400001":     {},
		"emperor-throttle = fast":         {},
		"emperor-max-throttle = 180000":   {func(c *Config) any { return c.MaxThrottle }, 3 * time.Minute},
		"emperor-required-heartbeat = 20": {func(c *Config) any { return c.heartbeat() }, 20 * time.Second},
		"emperor-required-heartbeat = 0":  {},
		"instance = default":              {func(c *Config) any { return c.heartbeat() }, 30 * time.Second},
		"emperor-curse-tolerance = 40":    {func(c *Config) any { return c.CurseTolerance }, 40 * time.Second},
		"emperor-no-blacklist = true":     {func(c *Config) any { return c.NoBlacklist }, true},
		"emperor-graceful-shutdown = 1":   {func(c *Config) any { return c.Graceful }, true},
	} {
		t.Run(text, func(t *testing.T) {
			key, value, _ := strings.Cut(text, " = ")
			c, errs := Parse(&ini.File{Name: "emperor.ini", Pairs: []ini.Pair{{Key: key, Value: value}}})
			if errs.Failed() != (tc.want == nil) {
				t.Fatal(errs)
			}
			if tc.want != nil && tc.got(c) != tc.want {
				t.Errorf("got %v, want %v", tc.got(c), tc.want)
			}
		})
	}
}

func TestMercy(t *testing.T) {
	for name, tc := range map[string]struct {
		tolerance time.Duration
		ini       string
		want      time.Duration
	}{
		"nobody says":      {0, "", vassal.DefaultMercy},
		"the emperor says": {time.Minute, "", time.Minute},
		"the vassal says":  {0, "reload-mercy = 3", 3 * time.Second},
		"both say":         {time.Minute, "reload-mercy = 10", 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t)
			e.Config.CurseTolerance = tc.tolerance
			if got := e.mercy(goodVassal(t, "blog", tc.ini)); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
