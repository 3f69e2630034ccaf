package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"fiefdom/emperor"
)

// Colors are the terminal's own; without any, the marks and words say the same.
var (
	bold     = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	warning  = lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true)
	selected = lipgloss.NewStyle().Reverse(true)
	ofState  = map[emperor.State]lipgloss.Style{
		emperor.Running:  lipgloss.NewStyle().Foreground(lipgloss.Green),
		emperor.Starting: lipgloss.NewStyle().Foreground(lipgloss.Yellow),
		emperor.Stopping: lipgloss.NewStyle().Foreground(lipgloss.Yellow),
		emperor.Backoff:  lipgloss.NewStyle().Foreground(lipgloss.Red),
		emperor.Invalid:  lipgloss.NewStyle().Foreground(lipgloss.Red),
		emperor.Stopped:  faint,
		emperor.Sleeping: faint,
	}
)

// View draws the screen.
func (m *model) View() tea.View {
	var lines []string
	if m.mode == reading {
		lines = append(lines, bold.Render(fit(m.subject+" of "+clean(m.selected), m.width, false)),
			m.pane.View(), faint.Render(fit("arrows scroll   esc back", m.width, false)))
	} else {
		lines = m.table()
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	v.WindowTitle = "fiefdom top"
	return v
}

// columns are those that fit the screen.
func (m *model) columns() []column {
	if m.width < wide {
		return columns[:optional]
	}
	return columns
}

func (m *model) table() []string {
	lines := []string{bold.Render(fit(m.head(), m.width, false)), m.second(), bold.Render(m.titles())}
	at, space := m.index(), m.space()
	for i := m.first; i < m.first+space; i++ {
		if i >= len(m.shown) {
			lines = append(lines, "")
			continue
		}
		lines = append(lines, m.line(&m.shown[i], i == at))
	}
	return append(lines, m.detail(at), m.foot())
}

func (m *model) head() string {
	words := []string{"fiefdom " + clean(m.Name), fmt.Sprintf("%d vassals", len(m.rows))}
	in := map[emperor.State]int{}
	for _, r := range m.rows {
		in[r.State]++
	}
	for _, s := range []emperor.State{
		emperor.Running, emperor.Starting, emperor.Backoff, emperor.Stopping, emperor.Stopped, emperor.Sleeping, emperor.Invalid,
	} {
		if in[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", in[s], s))
		}
	}
	return strings.Join(words, "  ")
}

// second is the line below the head: trouble first, then what all do together.
func (m *model) second() string {
	if m.trouble != "" {
		return warning.Render(fit("the emperor does not answer, trying again: "+clean(m.trouble), m.width, false))
	}
	var in, out, cpu float64
	var memory uint64
	used := false
	for _, r := range m.rows {
		in, out, cpu, memory, used = in+r.in, out+r.out, cpu+r.cpu, memory+r.MemoryBytes, used || r.used()
	}
	text := fmt.Sprintf("in %s/s  out %s/s", bytesText(in), bytesText(out))
	if used {
		text += fmt.Sprintf("  cpu %.1f%%  memory %s", 100*cpu, bytesText(float64(memory)))
	}
	if m.filter != "" {
		text += fmt.Sprintf("  filter %q: %d", m.filter, len(m.shown))
	}
	return fit(fmt.Sprintf("%s  (%s)", text, m.took.Round(time.Millisecond)), m.width, false)
}

func (m *model) titles() string {
	return m.cells(func(i int, c column) string {
		switch {
		case i != m.by:
			return c.name
		case m.reverse:
			return c.name + "-"
		}
		return c.name + "+"
	}, " ")
}

// cells puts texts below each other: names to the left, numbers to the right.
func (m *model) cells(text func(int, column) string, mark string) string {
	left := m.width - 1
	for _, c := range m.columns()[1:] {
		left -= c.width + 1
	}
	var cells []string
	for i, c := range m.columns() {
		if i == 0 {
			c.width = max(8, left)
		}
		cells = append(cells, fit(text(i, c), c.width, i > 1 && c.name != "ADDRESS"))
	}
	return fit(mark+strings.Join(cells, " "), m.width, false)
}

func (m *model) line(r *row, here bool) string {
	if here {
		return selected.Render(m.cells(func(_ int, c column) string { return c.text(r) }, ">"))
	}
	return m.cells(func(_ int, c column) string {
		if c.name == "STATE" {
			return ofState[r.State].Render(string(r.State))
		}
		return c.text(r)
	}, " ")
}

// detail is a line about the selected vassal: what is wrong with it.
func (m *model) detail(at int) string {
	switch {
	case m.mode == asking:
		return warning.Render(fit(fmt.Sprintf("%s %s? y/n", m.word, clean(m.selected)), m.width, false))
	case m.mode == filtering:
		return bold.Render(fit("/"+m.filter+"_", m.width, false))
	case m.notice != "":
		return fit(m.notice, m.width, false)
	case at >= 0:
		return fit(clean(m.shown[at].Error), m.width, false)
	case len(m.rows) == 0 && m.trouble == "":
		return fit("there are no vassals that you may see", m.width, false)
	}
	return ""
}

func (m *model) foot() string {
	return faint.Render(fit("l logs  s status  r restart  x stop  u start  o/O sort  / filter  q quit", m.width, false))
}
