package top

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"fiefdom/emperor"
	"fiefdom/internal/plaintext"
)

func TestRates(t *testing.T) {
	var r rates
	at := time.Now()
	first := r.rows([]emperor.Status{{Name: "a", RxBytes: 1000, TxBytes: 500, MemoryBytes: 1 << 20, CPUSeconds: 10, PIDs: 1, Drops: map[string]uint64{"rule": 2, "isolate": 3}}}, at)
	if w := first[0]; w.measured || w.cpuText() != "-" || w.rateText(w.in) != "-" || w.memoryText() != "1.0M" || w.drops != 5 {
		t.Errorf("first: %+v", w)
	}
	second := r.rows([]emperor.Status{{Name: "a", RxBytes: 3048, TxBytes: 300, CPUSeconds: 11, PIDs: 1}, {Name: "b", RxBytes: 1 << 40}}, at.Add(2*time.Second))
	if w := second[0]; w.rateText(w.in) != "1.0K" || w.rateText(w.out) != "150B" || w.cpuText() != "50.0" {
		t.Errorf("second: in %s, out %s, cpu %s", w.rateText(w.in), w.rateText(w.out), w.cpuText())
	}
	if w := second[1]; w.measured {
		t.Error("what was not there before has a rate")
	}
	if len(r.before) != 2 {
		t.Errorf("%d are remembered", len(r.before))
	}
	r.rows(nil, at.Add(3*time.Second))
	if len(r.before) != 0 {
		t.Errorf("%d that are gone are remembered", len(r.before))
	}
}

// A router that did not answer once is no flood when it does again.
func TestRatesWithoutAnAnswer(t *testing.T) {
	var r rates
	at := time.Now()
	for i, n := range []uint64{1 << 40, 0, 1<<40 + 100} {
		at = at.Add(time.Second)
		w := r.rows([]emperor.Status{{Name: "a", RxBytes: n, TxBytes: n}}, at)[0]
		if want := float64(i / 2 * 100); w.in != want || w.out != want {
			t.Errorf("answer %d: %v in, %v out; want %v", i, w.in, w.out, want)
		}
	}
}

func TestChosen(t *testing.T) {
	rows := []row{
		{Status: emperor.Status{Name: "Blog", State: emperor.Running, Restarts: 1}, in: 5, drops: 1},
		{Status: emperor.Status{Name: "shop", State: emperor.Backoff, Restarts: 7}, in: 9},
		{Status: emperor.Status{Name: "mail", State: emperor.Running, Restarts: 1}, in: 7},
	}
	for _, tc := range []struct {
		filter  string
		by      string
		reverse bool
		want    string
	}{
		{"", "NAME", false, "Blog mail shop"},
		{"", "NAME", true, "shop mail Blog"},
		{"", "IN/s", false, "shop mail Blog"},
		{"", "RESTARTS", false, "shop Blog mail"},
		{"", "RESTARTS", true, "Blog mail shop"},
		{"", "DROPS", false, "Blog mail shop"},
		{"BLO", "NAME", false, "Blog"},
		{"running", "IN/s", false, "mail Blog"},
		{"nothing", "NAME", false, ""},
	} {
		by := 0
		for i, c := range columns {
			if c.name == tc.by {
				by = i
			}
		}
		var names []string
		for _, r := range chosen(rows, tc.filter, by, tc.reverse) {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%q by %s: %s, want %s", tc.filter, tc.by, got, tc.want)
		}
	}
}

func TestTexts(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{fit("abc", 5, true), "  abc"},
		{fit("abcdef", 4, false), "abc…"},
		{fit("日本語", 4, false), "日… "},
		{fit("abc", -3, false), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

// plainModel shows some vassals, hostile ones among them.
func plainModel(t *testing.T, count int) *model {
	t.Helper()
	m := newModel(t.Context(), Options{Name: "test\x1b[2J"})
	all := []emperor.Status{
		{Name: "evil\x1b]0;x\a\u009b2J\nname", State: emperor.Invalid, Error: "line one\x1b[31m\nline two"},
		{Name: strings.Repeat("長い", 60), State: emperor.Running},
	}
	for i := range count - len(all) {
		all = append(all, emperor.Status{Name: fmt.Sprintf("vassal%04d", i), State: emperor.Running})
	}
	m.Update(answer{all: all, at: time.Now()})
	return m
}

var style = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// However small the terminal, and whatever the names, each line fits, there are
// not more than fit, and nothing but our own styles steers the terminal.
func TestViewFits(t *testing.T) {
	m := plainModel(t, 1000)
	for _, size := range []struct{ width, height int }{{80, 24}, {200, 60}, {104, 8}, {103, 8}, {40, 6}, {10, 3}, {1, 1}} {
		m.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
		for _, keys := range []string{"", "G", "g", "/e\r", "/", "\x1b", "r", "n", "O", "G"} {
			press(m, keys)
			text := m.View().Content
			lines := strings.Split(text, "\n")
			if len(lines) > max(size.height, 6) {
				t.Errorf("%v, %q: %d lines", size, keys, len(lines))
			}
			for _, line := range lines {
				bare := style.ReplaceAllString(line, "")
				if ansi.StringWidth(bare) > size.width || plaintext.Line(bare) != bare {
					t.Errorf("%v, %q: %q", size, keys, line)
				}
			}
		}
	}
}

func press(m *model, keys string) {
	for _, r := range keys {
		k := tea.KeyPressMsg{Code: r, Text: string(r)}
		switch r {
		case '\r':
			k = tea.KeyPressMsg{Code: tea.KeyEnter}
		case 0x1b:
			k = tea.KeyPressMsg{Code: tea.KeyEscape}
		}
		m.Update(k)
	}
}

// The selection stays with its vassal, and is always on the screen.
func TestSelectionStays(t *testing.T) {
	m := plainModel(t, 100)
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 15})
	press(m, "jjjjjjjjjjjjjjjjjjjj")
	was := m.selected
	onScreen := func(when string) {
		t.Helper()
		if at := m.index(); at < m.first || at >= m.first+m.space() {
			t.Errorf("%s: row %d is selected, those from %d are shown", when, at, m.first)
		}
	}
	onScreen("after moves")
	for _, keys := range []string{"o", "O", "<"} {
		press(m, keys)
		onScreen("after " + keys)
		if m.selected != was {
			t.Errorf("after %q %q is selected, not %q", keys, m.selected, was)
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 7})
	onScreen("in a small window")
	m.Update(answer{all: []emperor.Status{{Name: "last", State: emperor.Running}}, at: time.Now()})
	onScreen("when the others are gone")
	if m.selected != "last" {
		t.Errorf("%q is selected", m.selected)
	}
	m.Update(answer{at: time.Now()})
	press(m, "Gjrxls")
	if m.mode != browsing {
		t.Error("keys mean something without a vassal")
	}
}

// The emperor goes: the table stays, and says so until he is back.
func TestTrouble(t *testing.T) {
	m := plainModel(t, 10)
	m.Update(answer{err: errors.New("gone\x1b[2J")})
	if text := m.View().Content; !strings.Contains(text, "does not answer") || !strings.Contains(text, "vassal0003") || strings.Contains(text, "\x1b[2J") {
		t.Errorf("%q", text)
	}
	m.Update(answer{all: []emperor.Status{{Name: "blog"}}, at: time.Now()})
	if text := m.View().Content; strings.Contains(text, "does not answer") {
		t.Errorf("%q", text)
	}
}
