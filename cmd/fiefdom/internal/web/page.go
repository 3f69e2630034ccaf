package web

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

// templates are read when the first page is asked for: most processes of this
// program never show one.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.ParseFS(assets, "assets/*.html"))
})

// page is what all pages have.
type page struct {
	Title    string
	Instance string
	Version  string
	Began    string
	Now      string
	JSON     string // where the same is as JSON
}

func (s *site) page(title, json string) page {
	self := s.Self()
	p := page{
		Title: "fiefdom " + self.Instance, Instance: self.Instance, Version: self.Version, Began: self.Began.Local().Format(time.DateTime),
		Now: clock(s.watch.last()), JSON: json,
	}
	if title != "" {
		p.Title = title + " · " + p.Title
	}
	return p
}

// answer sends a page whole, or the error.
func (p *page) answer(w http.ResponseWriter, status int, name string, content any) {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, content); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a client that left has no use for it
}

// eventView is an event in a line.
type eventView struct {
	Time, Kind, Vassal, Shown, Text string
	Full                            string
}

func viewEvent(ev emperor.Event) eventView {
	return eventView{
		Time: clock(ev.Time), Full: ev.Time.Local().Format(time.RFC3339), Kind: ev.Kind, Vassal: ev.Vassal, Shown: plaintext.Line(ev.Vassal),
		Text: plaintext.Line(cut(ev.Text(), 600)),
	}
}

// eventsPage is what happened, the newest first.
type eventsPage struct {
	page
	Vassal, Shown string
	Events        []eventView
}

func (s *site) events(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	p := eventsPage{page: s.page("events", "api/events?name="+template.URLQueryEscaper(name)), Vassal: name, Shown: plaintext.Line(name)}
	for _, ev := range s.Events(name, atMost(r, "last", 300, mostEvents)) {
		p.Events = append(p.Events, viewEvent(ev))
	}
	p.answer(w, http.StatusOK, "events", &p)
}

// clock is a time of this day, or a date and time.
func clock(t time.Time) string {
	t = t.Local()
	if time.Since(t) < 12*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("01-02 15:04")
}

// when is how long ago something was, with the time itself for who asks.
func when(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	full := t.Local().Format(time.RFC3339)
	return template.HTML(`<time datetime="` + full + `" title="` + full + `">` + plaintext.Age(time.Since(t)) + `</time>`) //nolint:gosec // of digits alone
}

// rate is a number of bytes, each second.
func rate(f float32) string { return plaintext.Size(float64(f)) }

func percent(cpus float32) string { return fmt.Sprintf("%.1f", 100*cpus) }

// cut is the beginning of a text.
func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// reasons are drops by reason, the most first.
func reasons(drops map[string]uint64) string {
	var all []string
	for _, reason := range slices.SortedFunc(maps.Keys(drops), func(a, b string) int {
		return cmp.Or(cmp.Compare(drops[b], drops[a]), cmp.Compare(a, b))
	}) {
		if drops[reason] > 0 {
			all = append(all, plaintext.Count(drops[reason])+" "+reason)
		}
	}
	return strings.Join(all, ", ")
}

// trafficPlot draws what came in as an area, what went out as a line, and says
// what reaches its top.
func trafficPlot(width, height int, points []point) (drawn template.HTML, top string) {
	in, out := line{"in", of(points, pickIn), true}, line{"out", of(points, pickOut), false}
	drawn = plot(width, height, "bytes a second in the last hour: "+highLow("in", in.values)+", "+highLow("out", out.values), in, out)
	return drawn, plaintext.Size(peak([]line{in, out}))
}

// smallPlot is the one of a row.
func smallPlot(points []point) template.HTML {
	in, out := squeezed(points, pickIn), squeezed(points, pickOut)
	if highest(in) == 0 && highest(out) == 0 {
		return ""
	}
	return plot(length/squeeze, 16, highLow("in", in)+", "+highLow("out", out), line{"in", in, true}, line{"out", out, false})
}

// highLow says in words what a plot shows.
func highLow(what string, values []float64) string {
	if len(values) == 0 {
		return what + " not known yet"
	}
	return fmt.Sprintf("%s at most %s", what, plaintext.Size(highest(values)))
}
