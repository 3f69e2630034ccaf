package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

// row is a vassal as the table shows it.
type row struct {
	emperor.Status
	drops    uint64
	in, out  float64 // bytes a second
	cpu      float64 // CPUs in use
	measured bool    // there was an answer before, so that the rates are known
}

// sample is what of an answer the rates are made of.
type sample struct {
	rx, tx uint64
	cpu    float64 // seconds
}

// rates makes rows of an answer, and of the one before it.
type rates struct {
	at     time.Time
	before map[string]sample
}

func (r *rates) rows(all []emperor.Status, at time.Time) []row {
	took := at.Sub(r.at).Seconds()
	now := make(map[string]sample, len(all))
	rows := make([]row, 0, len(all))
	for _, s := range all {
		w := row{Status: s}
		for _, n := range s.Drops {
			w.drops += n
		}
		next := sample{s.RxBytes, s.TxBytes, s.CPUSeconds}
		last, ok := r.before[s.Name]
		if next.rx+next.tx == 0 { // the router did not answer, or began anew
			next.rx, next.tx = last.rx, last.tx
		}
		if ok && took > 0 {
			w.measured = true
			w.in, w.out = float64(emperor.Grown(last.rx, next.rx))/took, float64(emperor.Grown(last.tx, next.tx))/took
			w.cpu = emperor.Grown(last.cpu, next.cpu) / took
		}
		now[s.Name] = next
		rows = append(rows, w)
	}
	r.at, r.before = at, now
	return rows
}

// column is one of the table's, and an order of its rows.
type column struct {
	name  string
	width int // 0: what is left
	text  func(*row) string
	order func(a, b *row) int // what is interesting first
}

// columns fit into 80; those after optional are for wider terminals.
var columns = []column{
	{"NAME", 0, func(r *row) string { return plaintext.Line(r.Name) }, func(a, b *row) int { return cmp.Compare(a.Name, b.Name) }},
	{"STATE", 8, func(r *row) string { return string(r.State) }, func(a, b *row) int { return cmp.Compare(a.State, b.State) }},
	{"CPU%", 6, (*row).cpuText, func(a, b *row) int { return cmp.Compare(b.cpu, a.cpu) }},
	{"MEM", 6, (*row).memoryText, func(a, b *row) int { return cmp.Compare(b.MemoryBytes, a.MemoryBytes) }},
	{"IN/s", 6, func(r *row) string { return r.rateText(r.in) }, func(a, b *row) int { return cmp.Compare(b.in, a.in) }},
	{"OUT/s", 6, func(r *row) string { return r.rateText(r.out) }, func(a, b *row) int { return cmp.Compare(b.out, a.out) }},
	{"DROPS", 7, func(r *row) string { return plaintext.Count(r.drops) }, func(a, b *row) int { return cmp.Compare(b.drops, a.drops) }},
	{"RESTARTS", 9, func(r *row) string { return fmt.Sprint(r.Restarts) }, func(a, b *row) int { return cmp.Compare(b.Restarts, a.Restarts) }},
	{"SINCE", 5, func(r *row) string { return plaintext.Age(time.Since(r.Since)) }, func(a, b *row) int { return b.Since.Compare(a.Since) }},
	{"ADDRESS", 16, (*row).addressText, func(a, b *row) int { return cmp.Compare(a.addressText(), b.addressText()) }},
}

// optional is the first column that only a terminal of wide or more columns shows.
const (
	optional = 8
	wide     = 104
)

// used says whether CPU and memory are known.
func (r *row) used() bool { return r.PIDs > 0 }

func (r *row) cpuText() string {
	if !r.used() || !r.measured {
		return "-"
	}
	return fmt.Sprintf("%.1f", 100*r.cpu)
}

func (r *row) memoryText() string {
	if !r.used() {
		return "-"
	}
	return plaintext.Size(float64(r.MemoryBytes))
}

func (r *row) rateText(rate float64) string {
	if !r.measured {
		return "-"
	}
	return plaintext.Size(rate)
}

func (r *row) addressText() string {
	if len(r.Addresses) == 0 {
		return "-"
	}
	return r.Addresses[0].String()
}

// chosen are the rows that a filter lets through, in the order of a column.
// Equal ones are in the order of their names.
func chosen(rows []row, filter string, by int, reverse bool) []row {
	filter = strings.ToLower(filter)
	some := slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		return !strings.Contains(strings.ToLower(r.Name), filter) && !strings.Contains(string(r.State), filter)
	})
	slices.SortFunc(some, func(a, b row) int {
		c := columns[by].order(&a, &b)
		if reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Name, b.Name))
	})
	return some
}
