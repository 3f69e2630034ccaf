package exposure

import (
	"cmp"
	"math"
	"slices"
)

// Row is one thing that stands between an app and the rest, or does not.
type Row struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Text   string  `json:"text"`   // what is so
	Weight float64 `json:"weight"` // of the whole score, 0.0 to 10.0
	Advice *Advice `json:"advice,omitempty"`
}

// Report is what is to be said of one vassal.
type Report struct {
	Vassal  string   `json:"vassal"`
	File    string   `json:"file"`
	Level   string   `json:"level"`
	Running bool     `json:"running"`
	Score   float64  `json:"score"` // 0.0 (safe) to 10.0 (exposed)
	Word    string   `json:"word"`
	Rows    []Row    `json:"rows"`
	Lacks   []string `json:"lacks,omitempty"` // what this kernel has not
}

// worst is the score of an app that nothing stands in the way of.
const worst = 10

// Judge makes a report of facts: the rows in the order of their table, and a score
// that is the weight of those that are not well.
func Judge(f *Facts) Report {
	r := Report{Vassal: f.Vassal, File: f.File, Level: f.Level, Running: f.Running, Lacks: f.Lacks, Rows: make([]Row, 0, len(rows))}
	total, bad := 0, 0
	for i := range rows {
		total += rows[i].weight
	}
	for i := range rows {
		w := &rows[i]
		row := Row{Name: w.name, OK: w.ok(f), Text: w.good, Weight: tenths(worst * float64(w.weight) / float64(total))}
		if !row.OK {
			bad += w.weight
			advice := w.advice(f)
			row.Text, row.Advice = w.bad(f), &advice
		}
		r.Rows = append(r.Rows, row)
	}
	r.Score = tenths(worst * float64(bad) / float64(total))
	r.Word = word(r.Score)
	return r
}

func tenths(x float64) float64 { return math.Round(10*x) / 10 }

// words say what a score means, each from a score on.
var words = []struct {
	from float64
	word string
}{{7.5, "dangerous"}, {5, "exposed"}, {2.5, "medium"}, {1, "good"}, {0, "safe"}}

func word(score float64) string {
	for _, w := range words {
		if score >= w.from {
			return w.word
		}
	}
	return words[len(words)-1].word
}

// Worst are the rows that are not well, the heaviest first.
func (r *Report) Worst() (all []Row) {
	for _, row := range r.Rows {
		if !row.OK {
			all = append(all, row)
		}
	}
	slices.SortStableFunc(all, func(a, b Row) int { return cmp.Compare(b.Weight, a.Weight) })
	return all
}
