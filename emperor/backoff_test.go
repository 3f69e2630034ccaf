package emperor

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const young, old = time.Second, time.Minute
	for name, tc := range map[string]struct {
		lives []time.Duration
		want  []time.Duration // without jitter
	}{
		"first death at once":   {[]time.Duration{young}, []time.Duration{0}},
		"a failed start is not": {[]time.Duration{0, 0}, []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}},
		"doubling, capped": {
			[]time.Duration{young, young, young, young, young, young, young, young, young, young, young, young, young},
			[]time.Duration{0, 100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, 12800e6, 25600e6, 51200e6, time.Minute, time.Minute},
		},
		"a long life clears": {[]time.Duration{young, young, young, old, young, young}, []time.Duration{0, 100e6, 200e6, 0, 0, 100e6}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackoff()
			for i, lived := range tc.lives {
				got, want := b.died(lived), tc.want[i]
				if got > want || got < want-want/4 {
					t.Errorf("death %d: %v, want %v less at most a quarter", i+1, got, want)
				}
			}
		})
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	b := newBackoff()
	for range 10000 {
		if d := b.died(0); d < 0 || d > b.max {
			t.Fatalf("%v after %d deaths", d, b.deaths)
		}
	}
	b.clear()
	if d := b.died(time.Second); d != 0 {
		t.Errorf("%v after an operator's word", d)
	}
}

func TestBackoffHasJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 50 {
		b := newBackoff()
		b.deaths = 9
		seen[b.died(0)] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different delays of 50", len(seen))
	}
}
