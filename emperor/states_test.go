package emperor

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	allStates = []State{Starting, Running, Backoff, Stopping, Stopped, Sleeping, Invalid}
	allEvents = []event{good, same, lull, bad, gone, started, failed, exited, exiled, finished, tired, due, knock, start, stop, restart}
)

// cells is what the table should say, one line a state, one word an event:
// the state, what is done, and what comes when stopping is over. "-" is late
// news, or nothing to do.
var cells = `
         good                      same          lull          bad             gone                      started            failed         exited         exiled         finished      tired                   due             knock           start           stop                    restart
starting stopping/cancel>launch    -             -             starting/report stopping/cancel>forget    running            backoff/wait   -              -              -             -                       -               -               -               stopping/cancel>rest    stopping/cancel>launch
running  stopping/terminate>launch running/renew -             running/report  stopping/terminate>forget -                  -              backoff/wait   stopped/rest   sleeping/doze stopping/terminate>doze -               -               -               stopping/terminate>rest stopping/terminate>launch
backoff  starting/launch           -             sleeping/doze backoff/report  stopped/forget            -                  -              -              -              -             -                       starting/launch -               starting/launch stopped/rest            starting/launch
stopping stopping>launch           -             stopping>doze stopping/report stopping>forget           stopping/terminate stopped/decide stopped/decide stopped/decide -             -                       -               -               stopping>launch stopping>rest           stopping>launch
stopped  starting/launch           -             sleeping/doze invalid/report  stopped/forget            -                  -              -              -              -             -                       -               -               starting/launch stopped/rest            starting/launch
sleeping starting/launch           -             sleeping/doze sleeping/report stopped/forget            -                  backoff/wait   -              -              -             -                       -               starting/launch starting/launch stopped/rest            starting/launch
invalid  starting/launch           -             sleeping/doze invalid/report  stopped/forget            -                  -              -              -              -             -                       -               -               invalid/expand  stopped/rest            invalid/expand
`

func (r reaction) String() string {
	s := string(r.to)
	if r.do != nothing {
		s += "/" + string(r.do)
	}
	if r.then != nothing {
		s += ">" + string(r.then)
	}
	return s
}

func TestTable(t *testing.T) {
	rows := strings.Split(strings.TrimSpace(cells), "\n")
	events := strings.Fields(rows[0])
	if len(events) != len(allEvents) || len(rows)-1 != len(allStates) {
		t.Fatalf("%d events, %d states", len(events), len(rows)-1)
	}
	for _, row := range rows[1:] {
		words := strings.Fields(row)
		state := State(words[0])
		if !slices.Contains(allStates, state) || len(words) != len(events)+1 {
			t.Fatalf("row %q", row)
		}
		for i, want := range words[1:] {
			got := "-"
			if r, ok := table[state][event(events[i])]; ok {
				got = r.String()
			}
			if got != want {
				t.Errorf("%s, %s: %s, want %s", state, events[i], got, want)
			}
		}
	}
	for state, row := range table {
		for ev := range row {
			if !slices.Contains(allStates, state) || !slices.Contains(allEvents, ev) {
				t.Errorf("%s, %s is in no list of this test", state, ev)
			}
		}
	}
}

// TestTableIsSound checks what must hold whatever the cells are.
func TestTableIsSound(t *testing.T) {
	for _, s := range allStates {
		for _, ev := range []event{good, bad, gone} {
			if _, ok := table[s][ev]; !ok {
				t.Errorf("%s ignores that its ini is %s", s, ev)
			}
		}
	}
	for s, row := range table {
		for ev, r := range row {
			switch {
			case r.to == Stopping && s != Stopping && r.then == nothing:
				t.Errorf("%s, %s: stopping without an end", s, ev)
			case r.do == launch && r.to != Starting:
				t.Errorf("%s, %s: launched into %s", s, ev, r.to)
			case r.do == terminate && r.to != Stopping, r.do == cancel && r.to != Stopping:
				t.Errorf("%s, %s: %s into %s", s, ev, r.do, r.to)
			case r.do == doze && r.to != Sleeping:
				t.Errorf("%s, %s: dozing as %s", s, ev, r.to)
			case ev == exiled, ev == finished: // the process has ended
			case (s == Running || s == Starting) && r.to != s && r.to != Stopping && r.to != Backoff && r.to != Running:
				t.Errorf("%s, %s: %s while a process may live", s, ev, r.to)
			}
		}
	}
	reached := map[State]bool{Stopped: true} // a new vassal
	for range allStates {
		for s, row := range table {
			for _, r := range row {
				if reached[s] {
					reached[r.to] = true
				}
			}
		}
	}
	for _, s := range allStates {
		if !reached[s] {
			t.Errorf("nothing leads to %s", s)
		}
	}
}

// TestDiagram keeps doc.go's picture: its states are the table's.
func TestDiagram(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, picture, ok := strings.Cut(string(b), "file seen")
	if !ok {
		t.Fatal("no picture in doc.go")
	}
	for _, s := range allStates {
		if !regexp.MustCompile(`\b` + string(s) + `\b`).MatchString(picture) {
			t.Errorf("the picture does not show %s", s)
		}
	}
	// Arrows of the picture, as pairs that the table must have.
	for _, a := range []struct {
		from State
		ev   event
		to   State
	}{
		{Stopped, bad, Invalid},
		{Invalid, good, Starting},
		{Stopped, good, Starting},
		{Starting, started, Running},
		{Starting, failed, Backoff},
		{Backoff, due, Starting},
		{Running, exited, Backoff},
		{Running, exiled, Stopped},
		{Running, good, Stopping},
		{Running, gone, Stopping},
		{Running, stop, Stopping},
		{Stopping, exited, Stopped},
		{Stopped, lull, Sleeping},
		{Sleeping, knock, Starting},
		{Running, finished, Sleeping},
		{Backoff, lull, Sleeping},
	} {
		if got := table[a.from][a.ev].to; got != a.to {
			t.Errorf("the picture says %s on %s of %s, the table %s", a.to, a.ev, a.from, got)
		}
	}
}
