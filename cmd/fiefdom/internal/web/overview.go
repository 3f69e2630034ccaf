package web

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

// Bounds of the table.
const (
	usualRows = 200  // on a page
	mostRows  = 5000 // that somebody may ask for
)

// overviewPage is what the page of all vassals shows.
type overviewPage struct {
	page
	Trouble []string
	States  []stateView
	Total   int
	In, Out string
	CPU     string
	Memory  string
	Plot    template.HTML
	Top     string

	Filter, Sort string
	Columns      []columnView
	Rows         []rowView
	First, Last  int // of the rows that are shown, from 1
	Chosen       int // rows that the filter lets through
	Before, More string

	Networks []networkView
	Events   []eventView
}

type stateView struct {
	State emperor.State
	Count int
	Query string
}

type columnView struct{ Title, Query, Sorted string }

type rowView struct {
	Name, Shown, Key                  string
	State                             emperor.State
	Since                             template.HTML
	CPU, Memory, In, Out, Drops, Says string
	Trouble                           string
	Reasons                           string
	Restarts                          int
	Plot                              template.HTML
}

// columns are the table's, and what their heads order by: what is interesting first.
var columns = []struct {
	name, title string
	order       func(a, b *row) int
}{
	{"name", "vassal", func(a, b *row) int { return cmp.Compare(a.Name, b.Name) }},
	{"state", "state", func(a, b *row) int { return cmp.Compare(a.State, b.State) }},
	{"since", "since", func(a, b *row) int { return b.Since.Compare(a.Since) }},
	{"cpu", "CPU %", func(a, b *row) int { return cmp.Compare(b.cpu, a.cpu) }},
	{"memory", "memory", func(a, b *row) int { return cmp.Compare(b.MemoryBytes, a.MemoryBytes) }},
	{"in", "in/s", func(a, b *row) int { return cmp.Compare(b.in, a.in) }},
	{"out", "out/s", func(a, b *row) int { return cmp.Compare(b.out, a.out) }},
	{"", "last hour", nil},
	{"drops", "drops", func(a, b *row) int { return cmp.Compare(drops(b.Status), drops(a.Status)) }},
	{"restarts", "restarts", func(a, b *row) int { return cmp.Compare(b.Restarts, a.Restarts) }},
}

func (s *site) overview(w http.ResponseWriter, r *http.Request) {
	rows, all := s.watch.rows(s.ctx, none) // before the page, whose time is its
	p := overviewPage{page: s.page("", "api/vassals"), Total: len(rows)}
	p.Filter, p.Sort = plaintext.Line(r.URL.Query().Get("filter")), known(r.URL.Query().Get("sort"))
	p.addTotals(rows, all)
	p.addColumns()
	chosen := choose(rows, p.Filter, p.Sort)
	p.addRows(s.withPoints(p.cut(r, chosen)))
	p.addNetworks(r.Context(), s)
	for _, ev := range s.Events("", 15) {
		p.Events = append(p.Events, viewEvent(ev))
	}
	p.answer(w, http.StatusOK, "overview", &p)
}

// addTotals tells what all vassals do together.
func (p *overviewPage) addTotals(rows []row, all []point) {
	in := map[emperor.State]int{}
	var sum point
	for i := range rows {
		r := &rows[i]
		in[r.State]++
		sum = point{in: sum.in + r.in, out: sum.out + r.out, cpu: sum.cpu + r.cpu, memory: sum.memory + float32(r.MemoryBytes)}
	}
	for _, state := range emperor.States {
		if in[state] > 0 {
			p.States = append(p.States, stateView{state, in[state], p.query("filter", string(state))})
		}
	}
	if bad := in[emperor.Invalid] + in[emperor.Backoff]; bad > 0 {
		p.Title = fmt.Sprintf("%d in trouble · %s", bad, p.Title)
	}
	p.In, p.Out, p.CPU, p.Memory = rate(sum.in), rate(sum.out), percent(sum.cpu), plaintext.Size(float64(sum.memory))
	p.Plot, p.Top = trafficPlot(length, 60, all)
}

// query is the address of the same page with another word, from its first row on.
func (p *overviewPage) query(key, value string) string {
	q := url.Values{}
	for k, v := range map[string]string{"filter": p.Filter, "sort": p.Sort, key: value} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return "./?" + q.Encode()
}

func (p *overviewPage) addColumns() {
	by, reverse := strings.CutPrefix(p.Sort, "-")
	for _, c := range columns {
		v := columnView{Title: c.title}
		if c.order != nil {
			v.Query = p.query("sort", c.name)
		}
		if c.name == cmp.Or(by, "name") {
			v.Sorted = "descending" // numbers: the highest first
			if words := c.name == "name" || c.name == "state"; words != reverse {
				v.Sorted = "ascending"
			}
			if !reverse {
				v.Query = p.query("sort", "-"+c.name)
			}
		}
		p.Columns = append(p.Columns, v)
	}
}

// known is an order that there is, "" for any other.
func known(order string) string {
	for _, c := range columns {
		if c.order != nil && c.name == strings.TrimPrefix(order, "-") {
			return order
		}
	}
	return ""
}

// choose are the rows that a filter lets through, in the order of a column, those
// that are equal by name.
func choose(rows []row, filter, by string) []row {
	filter = strings.ToLower(filter)
	rows = slices.DeleteFunc(rows, func(r row) bool {
		return !strings.Contains(strings.ToLower(r.Name), filter) && !strings.Contains(string(r.State), filter)
	})
	by, reverse := strings.CutPrefix(by, "-")
	order := columns[0].order
	for _, c := range columns {
		if c.name == by && c.order != nil {
			order = c.order
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		c := order(&a, &b)
		if reverse {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Name, b.Name))
	})
	return rows
}

// cut takes those rows out of the chosen that a request wants to see.
func (p *overviewPage) cut(r *http.Request, chosen []row) []row {
	p.Chosen = len(chosen)
	size, number := atMost(r, "rows", usualRows, mostRows), atMost(r, "page", 1, 1<<20)
	first := min((number-1)*size, max(0, len(chosen)-1)/size*size)
	last := min(first+size, len(chosen))
	p.First, p.Last = min(first+1, last), last
	to := func(n int) string {
		address := p.query("page", strconv.Itoa(n))
		if size != usualRows {
			address += "&rows=" + strconv.Itoa(size)
		}
		return address
	}
	number = first/size + 1
	if first > 0 {
		p.Before = to(number - 1)
	}
	if last < len(chosen) {
		p.More = to(number + 1)
	}
	return chosen[first:last]
}

// withPoints gives rows their points.
func (s *site) withPoints(rows []row) []row {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for i := range rows {
		rows[i].points = s.watch.series[rows[i].Name].list()
	}
	return rows
}

func (p *overviewPage) addRows(rows []row) {
	for i := range rows {
		r := &rows[i]
		v := rowView{
			Name: r.Name, Shown: plaintext.Line(r.Name), Key: url.QueryEscape(r.Name), State: r.State, Since: when(r.Since), CPU: "–", Memory: "–", In: "–", Out: "–",
			Drops: plaintext.Count(drops(r.Status)), Reasons: reasons(r.Drops), Restarts: r.Restarts, Says: plaintext.Line(cut(r.Says, 200)),
			Trouble: plaintext.Line(cut(trouble(r.Status), 200)), Plot: smallPlot(r.points),
		}
		if r.PIDs > 0 {
			v.Memory = plaintext.Size(float64(r.MemoryBytes))
		}
		if r.measured {
			v.In, v.Out = rate(r.in), rate(r.out)
			if r.PIDs > 0 {
				v.CPU = percent(r.cpu)
			}
		}
		p.Rows = append(p.Rows, v)
	}
}

// trouble is what is wrong with a vassal. A crash loop is told first.
func trouble(s *emperor.Status) string {
	if s.State == emperor.Backoff && s.Deaths > 1 {
		return fmt.Sprintf("%d deaths, next start in %s: %s", s.Deaths, plaintext.Age(time.Until(s.NextStart)), s.Error)
	}
	return s.Error
}

// networkView is a network with what belongs to none of its peers.
type networkView struct {
	Name, Rx, Tx, Drops string
	Peers               int
}

func (p *overviewPage) addNetworks(ctx context.Context, s *site) {
	if s.Networks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	all, err := s.Networks(ctx)
	if err != nil {
		p.Trouble = append(p.Trouble, "the router does not answer, and traffic and drops are not known: "+plaintext.Line(err.Error()))
	}
	for _, n := range all {
		dropped := map[string]uint64{}
		for reason, count := range n.Drops {
			dropped[reason.String()] = count
		}
		p.Networks = append(p.Networks, networkView{
			plaintext.Line(n.Name), plaintext.Size(float64(n.Totals.RxBytes)), plaintext.Size(float64(n.Totals.TxBytes)), cmp.Or(reasons(dropped), "none"), len(n.Peers),
		})
	}
}
