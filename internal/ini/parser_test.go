package ini

import (
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// Generated inis, most of them damaged: each load ends without a panic, and
// costs 10 ms at most. FIEFDOM_SEED repeats a run. // T33
func TestParserSoak(t *testing.T) {
	runs := 3_000
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		runs = 10_000_000
	}
	most := 10 * time.Millisecond
	if nettest.Raced() {
		most *= 10
	}
	seed := seedOf(t)
	runtime.LockOSThread() // the time is this thread's
	defer runtime.UnlockOSThread()
	loaded, refused := 0, 0
	for i := range runs {
		s := damaged(newDice(seed + uint64(i)))
		o := fakeMachine(s)
		o.Limits = Limits{Pairs: 500, Value: 4096, Total: 64 << 10, Depth: 5, Sources: 50}
		var err error
		cost := time.Hour
		for range 4 { // the collector works for others: the least is what it costs
			before := threadTime(t)
			_, err = Load("main.ini", o)
			if cost = min(cost, threadTime(t)-before); cost <= most {
				break
			}
		}
		if cost > most {
			t.Fatalf("FIEFDOM_SEED=%d: %v of processor time for\n%q", seed+uint64(i), cost, s)
		}
		if err == nil {
			loaded++
			continue
		}
		if _, ok := errors.AsType[Errors](err); !ok {
			t.Fatalf("FIEFDOM_SEED=%d: an error without a place: %v", seed+uint64(i), err)
		}
		refused++
	}
	if loaded < runs/100 || refused < runs/100 {
		t.Errorf("%d loaded, %d refused", loaded, refused)
	}
}

// damaged is a scenario with some of its bytes changed, cut out or doubled.
func damaged(d dice) scenario {
	s := d.scenario()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		text := []byte(s[name])
		for range d.IntN(4) {
			if len(text) == 0 {
				break
			}
			at := d.IntN(len(text))
			end := min(len(text), at+d.IntN(20))
			switch d.IntN(3) {
			case 0:
				text[at] = byte(d.IntN(256))
			case 1:
				text = slices.Delete(text, at, end)
			default:
				text = slices.Insert(text, at, slices.Clone(text[at:end])...)
			}
		}
		s[name] = string(text)
	}
	return s
}

func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
