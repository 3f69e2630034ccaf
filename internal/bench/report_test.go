package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run found.
type report struct {
	Machine    string                          `json:"machine"`
	Date       time.Time                       `json:"date"`
	Program    string                          `json:"program"`
	Rounds     int                             `json:"rounds"`
	Congestion string                          `json:"congestion_control"`
	Others     []float64                       `json:"others"` // the share of the CPUs that others took before each line of each round
	Values     map[string]map[string][]float64 `json:"values"` // by line and system, one a round; 0: it failed
	Lines      []verdict                       `json:"lines"`
	Scale      []verdict                       `json:"scale"`

	plan     plan
	patience time.Duration // left for others to finish
}

// verdict is a line and its ratios.
type verdict struct {
	line
	Medians map[string]float64 `json:"medians"`
	ToVeth  spread             `json:"to_veth"`
	Met     string             `json:"met,omitempty"`
	MetAim  string             `json:"met_aim,omitempty"`
	Noise   spread             `json:"veth_to_itself"`
	ToUWSGI spread             `json:"to_uwsgi"`
	MetU    string             `json:"met_uwsgi,omitempty"`
}

func newReport(p plan) *report {
	var u unix.Utsname
	_ = unix.Uname(&u)
	machine := fmt.Sprintf("%d CPUs, %s, Linux %s", runtime.NumCPU(), cpuModel(), unix.ByteSliceToString(u.Release[:]))
	if *note != "" {
		machine += ", " + *note
	}
	return &report{
		Machine: machine, Date: time.Now().UTC().Truncate(time.Second), Program: *program, Rounds: p.rounds,
		Congestion: congestion, Values: map[string]map[string][]float64{}, plan: p, patience: *wait,
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(text), "model name")
	name, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(name, "\t :")
}

func (r *report) add(id, system string, v float64) {
	if r.Values[id] == nil {
		r.Values[id] = map[string][]float64{}
	}
	r.Values[id][system] = append(r.Values[id][system], v)
	if *mode != "smoke" {
		fmt.Printf("  %-12s %-24s %.4g\n", id, system, v)
	}
}

// round begins a round.
func (r *report) round(n int) {
	if *mode != "smoke" {
		fmt.Printf("%s round %d of %d\n", time.Now().Format(time.TimeOnly), n+1, r.Rounds)
	}
}

// quiet is the share of the machine's CPUs that others may take.
const quiet = 0.1

// await waits until nobody else is at work on the machine, as long as the run's
// patience lasts, and notes what it sees.
func (r *report) await(ctx context.Context) {
	const look = 250 * time.Millisecond
	for began := time.Now(); *mode != "smoke" && ctx.Err() == nil; {
		before, _ := busy()
		time.Sleep(look)
		after, _ := busy()
		share := (after - before) / look.Seconds() / float64(runtime.NumCPU())
		if waited := time.Since(began); share < quiet || waited > r.patience {
			r.patience = max(0, r.patience-waited)
			r.Others = append(r.Others, share)
			return
		}
	}
}

// judge computes the verdicts from the values.
func (r *report) judge() {
	r.Lines, r.Scale = nil, nil
	for family := range 2 {
		for _, l := range pathLines(family) {
			if r.Values[l.ID] != nil {
				r.Lines = append(r.Lines, r.verdict(l, sysUs))
			}
		}
	}
	for _, v := range variants {
		for _, l := range pathLines(0) {
			if len(r.Values[l.ID][v.system]) > 0 && v.of(l) {
				v.adjust(&l)
				l.Label += ", " + v.setting
				r.Lines = append(r.Lines, r.verdict(l, v.system))
			}
		}
	}
	if len(r.Values["starts"]) > 0 {
		r.Lines = append(r.Lines, r.verdict(line{ID: "starts", Label: fmt.Sprintf("start of %d jails", r.plan.jails), Unit: "jails/s"}, sysUs))
	}
	r.Scale = r.judgeScale()
}

func (r *report) verdict(l line, subject string) verdict {
	values := r.Values[l.ID]
	v := verdict{line: l, Medians: map[string]float64{}}
	for name, all := range values {
		v.Medians[name] = spreadOf(slices.DeleteFunc(slices.Clone(all), func(x float64) bool { return x == 0 })).Median
	}
	v.ToVeth = ratios(values[subject], values[sysVeth])
	v.Noise = ratios(values[sysAgain], values[sysVeth])
	v.ToUWSGI = ratios(values[subject], values[sysUWSGI])
	v.Met, v.MetAim, v.MetU = met(v.ToVeth, l.Must, l.Lower), met(v.ToVeth, l.Aim, l.Lower), met(v.ToUWSGI, l.UWSGI, l.Lower)
	if subject != sysUs {
		v.Medians[sysUs] = v.Medians[subject]
	}
	return v
}

// judgeScale compares us with many rules or peers with us without: no worse than
// veth is to itself.
func (r *report) judgeScale() (all []verdict) {
	for _, l := range pathLines(0) {
		values := r.Values["scale-"+l.ID]
		noise := ratios(values[sysAgain], values[sysVeth])
		for _, n := range r.plan.rules {
			all = append(all, scaled(l, fmt.Sprintf("%d rules", n), values, noise)...)
		}
		for _, n := range r.plan.peers {
			all = append(all, scaled(l, fmt.Sprintf("%d peers", n), values, noise)...)
		}
	}
	return all
}

func scaled(l line, name string, values map[string][]float64, noise spread) []verdict {
	if len(values[name]) == 0 {
		return nil
	}
	l.Label += ", " + name
	l.Must, l.Aim, l.UWSGI = noise.Min, 0, 0
	if l.Lower {
		l.Must = noise.Max
	}
	v := verdict{line: l, ToVeth: ratios(values[name], values[sysUs]), Noise: noise}
	v.Medians = map[string]float64{sysUs: spreadOf(slices.Clone(values[name])).Median, "base": spreadOf(slices.Clone(values[sysUs])).Median}
	v.Met = met(v.ToVeth, l.Must, l.Lower)
	return []verdict{v}
}

func (s spread) String() string {
	if s.Rounds == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3g (%.3g–%.3g)", s.Median, s.Min, s.Max)
}

func number(v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3g", v)
}

func bound(b float64, says string) string {
	if b == 0 {
		return "–"
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", b, says))
}

// print writes tables that are Markdown too.
func (r *report) print(w io.Writer) {
	r.judge()
	fmt.Fprintf(w, "\n%s; %v; %d rounds, %s. Ratios: median (min–max) of the rounds'.\n\n", r.Machine, r.Date.Format(time.DateOnly), r.Rounds, r.Congestion)
	if loud := len(slices.DeleteFunc(slices.Clone(r.Others), func(share float64) bool { return share < quiet })); loud > 0 {
		fmt.Fprintf(w, "The machine was not quiet: before %d of %d comparisons others took %.0f %% of its CPUs or more.\n\n", loud, len(r.Others), 100*quiet)
	}
	rows := [][]string{{"", "veth", "uWSGI", "us", "us ÷ veth", "must", "aim", "veth ÷ veth", "us ÷ uWSGI", "must"}}
	for _, v := range r.Lines {
		rows = append(rows, []string{
			v.Label + ", " + v.Unit, number(v.Medians[sysVeth]), number(v.Medians[sysUWSGI]), number(v.Medians[sysUs]), v.ToVeth.String(),
			bound(v.Must, v.Met), bound(v.Aim, v.MetAim), v.Noise.String(), v.ToUWSGI.String(), bound(v.UWSGI, v.MetU),
		})
	}
	table(w, rows)
	if len(r.Scale) == 0 {
		return
	}
	rows = [][]string{{"", "without", "with", "with ÷ without", "must", "veth ÷ veth"}}
	for _, v := range r.Scale {
		rows = append(rows, []string{
			v.Label + ", " + v.Unit, number(v.Medians["base"]), number(v.Medians[sysUs]), v.ToVeth.String(),
			bound(v.Must, v.Met), v.Noise.String(),
		})
	}
	fmt.Fprintln(w)
	table(w, rows)
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(r.Values["memory"])) {
		kb := spreadOf(slices.Clone(r.Values["memory"][name]))
		fmt.Fprintf(w, "memory of the router per idle peer, of %s: %.2g KB; must 8 KB: %s; aim 3 KB: %s\n",
			name, kb.Median, met(kb, 8, true), met(kb, 3, true))
	}
}

// table aligns its columns.
func table(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(w, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.svg"), []byte(r.plot()), 0o644)
}
