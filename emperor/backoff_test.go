package emperor

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const young, old = time.Second, time.Minute
	for name, tc := range map[string]struct {
		config Config
		lives  []time.Duration
		want   []time.Duration // without jitter
	}{
		"first death at once":   {Config{}, []time.Duration{young}, []time.Duration{0}},
		"a failed start is not": {Config{}, []time.Duration{0, 0}, []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}},
		"doubling, capped": {
			Config{},
			[]time.Duration{young, young, young, young, young, young, young, young, young, young, young, young, young},
			[]time.Duration{0, 100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, 12800e6, 25600e6, 51200e6, 102400e6, 180e9},
		},
		"a long life clears": {Config{}, []time.Duration{young, young, young, old, young, young}, []time.Duration{0, 100e6, 200e6, 0, 0, 100e6}},
		"own throttle":       {Config{Throttle: time.Second, MaxThrottle: 3 * time.Second}, []time.Duration{young, young, young, young, young}, []time.Duration{0, 1e9, 2e9, 3e9, 3e9}},
		"no blacklist":       {Config{NoBlacklist: true}, []time.Duration{young, young, young, young, 0}, []time.Duration{0, 100e6, 100e6, 100e6, 100e6}},
		"first over the cap": {Config{Throttle: time.Hour}, []time.Duration{0, 0, 0}, []time.Duration{time.Hour, time.Hour, time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackoff(&tc.config)
			for i, lived := range tc.lives {
				got, want := b.died(lived, lived >= b.young), tc.want[i]
				most := min(b.max, want+want/4)
				if least := min(want, max(b.first, b.max-b.max/5)); got > most || got < least {
					t.Errorf("death %d: %v, want %v to %v", i+1, got, least, most)
				}
			}
		})
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	b := newBackoff(&Config{})
	for range 10000 {
		if d := b.died(0, false); d < 0 || d > b.max {
			t.Fatalf("%v after %d deaths", d, b.deaths)
		}
	}
	b.clear()
	if d := b.died(time.Second, false); d != 0 {
		t.Errorf("%v after an operator's word", d)
	}
}

// However the jitter falls, no delay is shorter than this table's, and by the
// table's an app that ends at once is started 16 times in ten minutes at most. // T50
func TestBackoffWithTheLeastJitter(t *testing.T) {
	least := []time.Duration{
		0, 100e6, 200e6, 400e6, 800e6, 1600e6, 3200e6, 6400e6, 12800e6, 25600e6, 51200e6, 102400e6,
		144e9, 144e9, 144e9, 144e9, // the cap, and a fifth less
	}
	for range 1000 {
		b := newBackoff(&Config{})
		for i, want := range least {
			if got := b.died(time.Nanosecond, false); got < want {
				t.Fatalf("death %d: %v, want no less than %v", i+1, got, want)
			}
		}
	}
	starts := 1
	for at, i := time.Duration(0), 0; at+least[i] < 10*time.Minute; i++ {
		at += least[i]
		starts++
	}
	if starts > 16 {
		t.Errorf("%d starts in ten minutes", starts)
	}
}

// An app that ends at once is started a few times in ten minutes, not more. // T50
func TestBackoffOfACrashLoop(t *testing.T) {
	for range 1000 {
		b := newBackoff(&Config{})
		starts := 0
		for at := time.Duration(0); at < 10*time.Minute; at += time.Millisecond + b.died(time.Millisecond, false) {
			starts++
		}
		if starts > 16 || starts < 12 {
			t.Fatalf("%d starts in ten minutes, want 12 to 16", starts)
		}
	}
}

func TestBackoffHasJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 50 {
		b := newBackoff(&Config{})
		b.deaths = 9
		seen[b.died(0, false)] = true
	}
	if len(seen) < 10 {
		t.Errorf("%d different delays of 50", len(seen))
	}
}

// Who says that he is loyal is back at once, and is still no busy loop.
func TestBackoffOfTheLoyal(t *testing.T) {
	for name, tc := range map[string]struct{ lived, want time.Duration }{
		"after a day": {24 * time.Hour, 0},
		"soon":        {100 * time.Millisecond, 0},
		"sooner":      {30 * time.Millisecond, 70 * time.Millisecond},
		"at once":     {0, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackoff(&Config{})
			b.deaths = 9
			for range 3 {
				if got := b.died(tc.lived, true); got != tc.want || b.deaths != 0 {
					t.Errorf("%v with %d deaths, want %v", got, b.deaths, tc.want)
				}
			}
		})
	}
}

// The log hears of the first deaths, and then of one in a while.
func TestBackoffTells(t *testing.T) {
	b := newBackoff(&Config{NoBlacklist: true})
	now, told := time.Now(), 0
	for range 36000 { // an hour, ten a second
		b.died(time.Millisecond, false)
		if b.tells(now) {
			told++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if told < toldDeaths+5 || told > toldDeaths+6 {
		t.Errorf("told %d times in an hour", told)
	}
	b.clear()
	b.died(time.Millisecond, false)
	if !b.tells(now) {
		t.Error("a new death after all was well is not told")
	}
}
