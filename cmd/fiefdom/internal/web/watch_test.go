package web

import (
	"context"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
)

// counting is a watch over vassals that a test changes.
type counting struct {
	watch
	vassals []emperor.Status
	asked   int
}

func newCounting(vassals ...emperor.Status) *counting {
	c := &counting{vassals: vassals}
	c.ask = func(context.Context) []emperor.Status { c.asked++; return c.vassals }
	return c
}

func TestPoints(t *testing.T) {
	c := newCounting(emperor.Status{Name: "a", RxBytes: 1 << 40, TxBytes: 5, CPUSeconds: 100})
	at := time.Now()
	tick(&c.watch, at)
	if _, all := c.rows(t.Context(), none); len(all) != 0 {
		t.Fatalf("what counters had before is a rate: %v", all)
	}
	c.vassals = []emperor.Status{
		{Name: "a", RxBytes: 1<<40 + 10000, TxBytes: 0, CPUSeconds: 105, MemoryBytes: 7, Drops: map[string]uint64{"rule": 20}},
		{Name: "b", RxBytes: 500},
	}
	tick(&c.watch, at.Add(interval))
	if got, want := c.series["a"].list(), (point{in: 1000, out: 0, cpu: 0.5, memory: 7, drops: 2}); len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := c.series["b"].list(); len(got) != 1 || got[0].in != 50 {
		t.Errorf("one that has come: %+v", got)
	}
	if got := c.all.list(); len(got) != 1 || got[0].in != 1050 {
		t.Errorf("all together: %+v", got)
	}
	// A late tick stands for those that were missed; the axis stays true.
	c.vassals = c.vassals[:1]
	c.vassals[0].RxBytes += 30000
	tick(&c.watch, at.Add(4*interval))
	if got := c.series["a"].list(); len(got) != 4 || got[3].in != 1000 || got[1].in != 1000 {
		t.Errorf("%+v", got)
	}
	if len(c.series) != 1 {
		t.Errorf("%d series are kept of one vassal", len(c.series))
	}
}

// A router that did not answer once is no flood when it does again, neither in the
// plots nor in the rates of the moment; one that began anew counts from zero.
func TestCountersOfTheRouter(t *testing.T) {
	for name, c := range map[string]struct {
		counted []uint64
		want    []float32 // bytes a second
	}{
		"no answer":           {[]uint64{1 << 40, 0, 1<<40 + 1000}, []float32{0, 100}},
		"no answer for long":  {[]uint64{1 << 40, 0, 0, 1<<40 + 1000, 1<<40 + 3000}, []float32{0, 0, 100, 200}},
		"began anew":          {[]uint64{1 << 40, 500, 700}, []float32{50, 20}},
		"began anew, silent":  {[]uint64{1 << 40, 0, 0, 700, 900}, []float32{0, 0, 70, 20}},
		"nothing, then a bit": {[]uint64{0, 0, 300}, []float32{0, 30}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCounting(emperor.Status{Name: "a"})
			at := time.Now().Add(-time.Duration(len(c.counted)) * interval)
			for i, n := range c.counted {
				at = at.Add(interval)
				w.vassals = []emperor.Status{{Name: "a", RxBytes: n, TxBytes: n, Drops: map[string]uint64{"rule": n}, CPUSeconds: float64(i)}}
				tick(&w.watch, at)
				if i == 0 {
					continue
				}
				want := point{in: c.want[i-1], out: c.want[i-1], drops: c.want[i-1], cpu: 0.1}
				if got := w.series["a"].list(); len(got) != i || got[i-1] != want {
					t.Errorf("look %d: the plots have %+v, want %+v", i, got, want)
				}
				if got := w.now.samples["a"].since(w.before.samples["a"], interval); got != want {
					t.Errorf("look %d: the rates are %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// An hour is kept and no more, in its order.
func TestSeriesIsBounded(t *testing.T) {
	var s series
	for i := range 3*length + 7 {
		s.add(point{in: float32(i)})
	}
	got := s.list()
	if len(got) != length || got[0].in != 2*length+7 || got[length-1].in != 3*length+6 || cap(s.points) > 2*length {
		t.Errorf("%d points from %v to %v", len(got), got[0].in, got[length-1].in)
	}
}

// However many ask, the emperor is asked once a second.
func TestLooksAreShared(t *testing.T) {
	c := newCounting(emperor.Status{Name: "a"})
	for range 100 {
		c.rows(t.Context(), none)
	}
	if c.asked > 2 {
		t.Errorf("asked %d times", c.asked)
	}
}

// The rates of the moment are those between two looks.
func TestRatesOfTheMoment(t *testing.T) {
	c := newCounting(emperor.Status{Name: "a", RxBytes: 1000})
	at := time.Now()
	c.take(look{at: at.Add(-2 * time.Second), vassals: c.vassals})
	if rows, _ := c.rows(t.Context(), none); rows[0].measured && rows[0].in > 0 {
		t.Errorf("%+v", rows[0].point)
	}
	c.now, c.before = look{}, look{}
	c.take(look{at: at.Add(-2 * time.Second), vassals: []emperor.Status{{Name: "a", RxBytes: 1000}}})
	c.take(look{at: at, vassals: []emperor.Status{{Name: "a", RxBytes: 5000}, {Name: "b", RxBytes: 5}}})
	rows, _ := c.rows(t.Context(), none)
	if !rows[0].measured || rows[0].in != 2000 || rows[1].measured {
		t.Errorf("%+v", rows)
	}
}

func TestPlot(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64
		filled bool
		want   string
	}{
		{"nothing", nil, false, ""},
		{"zeros", []float64{0, 0, 0, 0}, false, "M57 9.5L60 9.5"},
		{"an area of zeros", []float64{0, 0, 0, 0}, true, ""},
		{"the newest is at the right", []float64{0, 9}, false, "M59 9.5L60 0.5"},
		{"an area ends at the ground", []float64{9, 0}, true, "M59 10L59 0.5L60 9.5V10Z"},
	} {
		if got := path(line{values: tc.values, filled: tc.filled}, 60, 10, highest(tc.values)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	var full []float64
	for i := range length {
		full = append(full, float64(i%100))
	}
	if got := path(line{values: full}, length, 60, 99); !strings.HasPrefix(got, "M1 ") || !strings.HasSuffix(got, "L360 "+got[strings.LastIndex(got, " ")+1:]) {
		t.Errorf("a full hour goes to both edges: %s", got)
	}
}

// A small plot has the peaks, and the newest value is of whole points.
func TestSqueezed(t *testing.T) {
	var points []point
	for i := range 15 {
		points = append(points, point{in: float32(i)})
	}
	got := squeezed(points, pickIn)
	if len(got) != 3 || got[0] != 2 || got[1] != 8 || got[2] != 14 {
		t.Errorf("%v", got)
	}
}
