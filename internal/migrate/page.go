package migrate

import (
	"fmt"
	"strings"
)

// Page is the tables of docs/migrating.md: every row with what becomes of its
// options where no uwsgi is the app.
func (t Tables) Page() string {
	words := map[Fate]string{Works: "works", Differs: "differs", Needless: "needless", Missing: "not there"}
	var b strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n| option | here | |\n|---|---|---|\n", g.title)
		for _, r := range g.rows {
			for _, line := range t.lines(r) {
				here, text := words[line.fate], line.text
				if r.app && line.fate != Works && line.fate != Differs {
					here, text = "works with a uwsgi", "with a command: "+text
				}
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.Join(line.names, "`, `"), here, text)
			}
		}
	}
	return b.String()
}

// line is the part of a row that shares a fate.
type line struct {
	names []string
	fate  Fate
	text  string
}

func (t Tables) lines(r row) []line {
	var lines []line
	for _, name := range r.names {
		v, text := t.Judge(Option{Name: name, Side: r.sides()[0]})
		if n := len(lines); n > 0 && lines[n-1].fate == v {
			lines[n-1].names = append(lines[n-1].names, name)
			continue
		}
		lines = append(lines, line{of(name), v, text})
	}
	return lines
}
