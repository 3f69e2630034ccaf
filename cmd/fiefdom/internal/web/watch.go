package web

import (
	"context"
	"sync"
	"time"

	"fiefdom/emperor"
)

// Bounds in time of what is kept.
const (
	interval = 10 * time.Second // of the points of a series
	length   = 360              // points: an hour
	fresh    = time.Second      // a look younger than this is shown again
	askTime  = 10 * time.Second // for the emperor to answer
)

// sample is what of a vassal the rates are made of.
type sample struct {
	rx, tx, drops uint64
	cpu           float64 // seconds
}

// point is what a vassal did in one interval.
type point struct {
	in, out float32 // bytes a second
	cpu     float32 // CPUs
	memory  float32 // bytes at its end
	drops   float32 // packets a second
}

// since is what came between two samples, memory aside.
func (s sample) since(before sample, took time.Duration) point {
	seconds := took.Seconds()
	if seconds <= 0 {
		return point{}
	}
	return point{
		in: float32(float64(emperor.Grown(before.rx, s.rx)) / seconds), out: float32(float64(emperor.Grown(before.tx, s.tx)) / seconds),
		drops: float32(float64(emperor.Grown(before.drops, s.drops)) / seconds), cpu: float32(emperor.Grown(before.cpu, s.cpu) / seconds),
	}
}

// series are the points of the last hour, in a ring that grows as they come.
type series struct {
	points []point
	next   int // where the next goes, once the ring is full
}

func (s *series) add(p point) {
	if len(s.points) < length {
		s.points = append(s.points, p)
		return
	}
	s.points[s.next] = p
	s.next = (s.next + 1) % length
}

// list are the points, the oldest first.
func (s *series) list() []point {
	if s == nil {
		return nil
	}
	return append(append(make([]point, 0, len(s.points)), s.points[s.next:]...), s.points[:s.next]...)
}

// look is what was seen at a time.
type look struct {
	at      time.Time
	vassals []emperor.Status
	samples map[string]sample
}

// watch looks at the vassals, when somebody asks and once an interval.
type watch struct {
	ask func(context.Context) []emperor.Status

	mu      sync.Mutex
	now     look
	before  look // with now it makes the rates of the moment
	counted look // when the last points were made
	series  map[string]*series
	all     series // of all vassals together
}

// run makes the points until ctx is done.
func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		w.mu.Lock()
		w.refresh(ctx, 0)
		w.count()
		w.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// refresh looks again if the last look is older than age.
func (w *watch) refresh(ctx context.Context, age time.Duration) {
	if !w.now.at.IsZero() && time.Since(w.now.at) < age {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	w.take(look{vassals: w.ask(ctx), at: time.Now()})
}

// take makes a look the present one.
func (w *watch) take(l look) {
	l.samples = make(map[string]sample, len(l.vassals))
	for i := range l.vassals {
		s := &l.vassals[i]
		now := sample{s.RxBytes, s.TxBytes, drops(s), s.CPUSeconds}
		if now.rx+now.tx+now.drops == 0 { // the router did not answer, or began anew
			was := w.now.samples[s.Name]
			now.rx, now.tx, now.drops = was.rx, was.tx, was.drops
		}
		l.samples[s.Name] = now
	}
	if l.at.Sub(w.now.at) >= fresh/2 || w.before.at.IsZero() {
		w.before = w.now
	}
	w.now = l
}

func drops(s *emperor.Status) (n uint64) {
	for _, d := range s.Drops {
		n += d
	}
	return n
}

// count makes the points between the last time and now: one, or as many as there
// should have been by now.
func (w *watch) count() {
	before := w.counted
	w.counted = w.now
	if before.at.IsZero() {
		return // what counters had before is nobody's rate
	}
	took := w.now.at.Sub(before.at)
	times := min(max(1, int((took+interval/2)/interval)), length)
	kept := make(map[string]*series, len(w.now.vassals))
	var all point
	for i := range w.now.vassals {
		s := &w.now.vassals[i]
		p := w.now.samples[s.Name].since(before.samples[s.Name], took)
		p.memory = float32(s.MemoryBytes)
		all = point{all.in + p.in, all.out + p.out, all.cpu + p.cpu, all.memory + p.memory, all.drops + p.drops}
		one := w.series[s.Name]
		if one == nil {
			one = &series{}
		}
		kept[s.Name] = one
		for range times {
			one.add(p)
		}
	}
	for range times {
		w.all.add(all)
	}
	w.series = kept
}

// row is a vassal with what it does at the moment.
type row struct {
	*emperor.Status // of the look, which nobody changes
	point
	measured bool    // there are two looks to make rates of
	points   []point // of the last hour, the oldest first
}

// last is when the vassals were last looked at.
func (w *watch) last() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.at
}

// statuses are all vassals as they are now.
func (w *watch) statuses(ctx context.Context) []emperor.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh(ctx, fresh)
	return append([]emperor.Status{}, w.now.vassals...)
}

// rows are all vassals as they are now, those that a condition chooses with their
// points, and what all do together.
func (w *watch) rows(ctx context.Context, withPoints func(name string) bool) (rows []row, all []point) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh(ctx, fresh)
	took := w.now.at.Sub(w.before.at)
	rows = make([]row, 0, len(w.now.vassals))
	for i := range w.now.vassals {
		s := &w.now.vassals[i]
		r := row{Status: s}
		if before, ok := w.before.samples[s.Name]; ok {
			r.measured = true
			r.point = w.now.samples[s.Name].since(before, took)
		}
		if withPoints(s.Name) {
			r.points = w.series[s.Name].list()
		}
		rows = append(rows, r)
	}
	return rows, w.all.list()
}
