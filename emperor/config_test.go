package emperor

import (
	"fmt"
	"testing"
	"time"

	"fiefdom/internal/ini"
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
