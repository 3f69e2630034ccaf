package emperor

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestHistoryTellsWhen(t *testing.T) {
	var h history
	at := time.UnixMilli(1_800_000_000_000)
	for i, text := range []string{"one\ntwo", " and more\n", "three\n", "", "no end"} {
		h.add([]byte(text), at.Add(time.Duration(i)*time.Second))
	}
	for _, tc := range []struct {
		wait bool
		want string
		rest string
	}{
		{true, "0 one|0 two and more|2 three|", "no end"},
		{false, "0 one|0 two and more|2 three|4 no end|", ""},
	} {
		lines, next := h.since(0).lines(tc.wait)
		got := ""
		for _, l := range lines {
			got += fmt.Sprintf("%.0f %s|", l.Time.Sub(at).Seconds(), l.Text)
		}
		if got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
		if rest := h.since(next); string(rest.kept) != tc.rest {
			t.Errorf("then comes %q, want %q", rest.kept, tc.rest)
		}
	}
}

// However it is written, the history is bounded, begins with a whole line, and
// its times are right.
func TestHistoryIsBounded(t *testing.T) {
	for name, size := range map[string]int{"short": 7, "usual": 100, "long": 5000} {
		t.Run(name, func(t *testing.T) {
			var h history
			at := time.UnixMilli(1_800_000_000_000)
			const count = 50_000
			for i := range count {
				h.add(fmt.Appendf(nil, "%0*d\n", size-1, i), at.Add(time.Duration(i)*time.Millisecond))
				if n := len(h.store.(*memory).b); n > historySize || len(h.index) > historyRing/indexStep+1 {
					t.Fatalf("%d bytes, %d spots", n, len(h.index))
				}
			}
			kept := h.since(0)
			lines, _ := kept.lines(true)
			if size >= 16 && len(kept.kept) < min(outputKept, count*size) {
				t.Fatalf("%d bytes in %d lines", len(kept.kept), len(lines))
			}
			if len(lines) < 50 {
				t.Fatalf("%d lines", len(lines))
			}
			for i, l := range lines {
				number := count - len(lines) + i
				if strings.TrimLeft(l.Text, "0") != fmt.Sprint(number) {
					t.Fatalf("line %d is %.20q", number, l.Text)
				}
				if want := at.Add(time.Duration(number) * time.Millisecond); !l.Time.Equal(want) {
					t.Fatalf("line %d is of %s, want %s", number, l.Time, want)
				}
			}
		})
	}
}

func TestLogQuery(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	var all []LogLine
	for i := range 5 {
		all = append(all, LogLine{Time: at.Add(time.Duration(i) * time.Second), Text: fmt.Sprint(i)})
	}
	for name, tc := range map[string]struct {
		q    LogQuery
		want string
	}{
		"all":            {LogQuery{}, "01234"},
		"last":           {LogQuery{Last: 2}, "34"},
		"more than all":  {LogQuery{Last: 20}, "01234"},
		"since":          {LogQuery{Since: at.Add(3 * time.Second)}, "34"},
		"since, between": {LogQuery{Since: at.Add(2500 * time.Millisecond)}, "34"},
		"last since":     {LogQuery{Since: at.Add(time.Second), Last: 3}, "234"},
		"in the future":  {LogQuery{Since: at.Add(time.Hour)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := parseLogQuery(tc.q.values())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, l := range q.choose(all) {
				got += l.Text
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	for _, bad := range []url.Values{{"since": {"x"}}, {"since": {""}}, {"last": {"0"}}, {"last": {"x"}}} {
		if _, err := parseLogQuery(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
