package exposure

import (
	"fmt"
	"slices"
	"strings"
)

// Advice is what would turn a row.
type Advice struct {
	Write   []string `json:"write,omitempty"`   // lines for the vassal's ini, each in place of those of its option
	Remove  []string `json:"remove,omitempty"`  // options, or whole lines, to take out of it
	Emperor []string `json:"emperor,omitempty"` // lines for the emperor's ini
	Run     []string `json:"run,omitempty"`     // commands
	Note    string   `json:"note,omitempty"`    // what no line can do, or what a line costs
}

// String is the advice on one line.
func (a Advice) String() string {
	var parts []string
	add := func(format string, lines []string) {
		if len(lines) > 0 {
			parts = append(parts, fmt.Sprintf(format, strings.Join(lines, "; ")))
		}
	}
	add("without %s", a.Remove)
	add("%s", a.Write)
	add("in the emperor's ini: %s", a.Emperor)
	add("run: %s", a.Run)
	text := strings.Join(parts, "; ")
	if a.Note == "" {
		return text
	}
	if text == "" {
		return a.Note
	}
	return text + " (" + a.Note + ")"
}

// full says whether its level confines the whole app.
func (f *Facts) full() bool { return f.Level == "default" || f.Level == "strict" }

// confined is the advice to write confine = default, and then more.
func (f *Facts) confined(more ...string) Advice {
	if f.full() {
		return Advice{Write: more}
	}
	return Advice{Remove: f.Ini.Against, Write: append([]string{"confine = default"}, more...)}
}

// hooked is confined, or for an app that is it already: a hook has undone it.
func (f *Facts) hooked(what string) Advice {
	if f.full() {
		return Advice{Remove: f.Ini.Hooks, Note: what}
	}
	return f.confined()
}

func shared(kind string) func(*Facts) bool {
	return func(f *Facts) bool { return !slices.Contains(f.Sight.Shared, kind) }
}

func confine(f *Facts) Advice { return f.confined() }

// quoted is a path as a shell takes it for one word, whoever has named the file.
func quoted(path string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-@+", r)
	}
	if !strings.ContainsFunc(path, func(r rune) bool { return !safe(r) }) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// some are the first of what can be many.
func some(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], " "), len(all)-most)
	}
	return strings.Join(all, " ")
}
