package ini

import (
	"errors"
	"fmt"

	"github.com/agnivade/levenshtein"
)

// Doc describes an option to people: "fiefdom options" and the reference page
// print it.
type Doc struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	Kind    Kind     `json:"kind"`
	Meaning string   `json:"meaning"`
	Since   string   `json:"since,omitempty"`
	Repeats bool     `json:"repeats,omitempty"`
	Group   string   `json:"group"`
}

// Docs describes the options of a table; group names the table.
func Docs[T any](group string, table []Option[T]) []Doc {
	docs := make([]Doc, len(table))
	for i, o := range table {
		docs[i] = Doc{o.Name, o.Aliases, o.Kind, o.Meaning, o.Since, o.Repeats, group}
	}
	return docs
}

// Decode stores pairs in into: it calls Set for every occurrence of an option
// of the table, by its name or an alias, in the order of the file. Keys that
// are not in the table are somebody else's. It goes on after an error, so that
// all of them are reported; into must not be used if the result Failed.
func Decode[T any](into *T, table []Option[T], pairs []Pair) Errors {
	byName := make(map[string]*Option[T], len(table))
	for i := range table {
		o := &table[i]
		byName[o.Name] = o
		for _, alias := range o.Aliases {
			byName[alias] = o
		}
	}
	var errs Errors
	for _, p := range pairs {
		o := byName[p.Key]
		if o == nil || o.Set == nil {
			continue
		}
		if err := o.Set(into, p); err != nil {
			if errs = append(errs, placed(err, p.Pos)); len(errs) >= maxDecoded {
				break // some look for users or files
			}
		}
	}
	return errs
}

// maxDecoded is how many errors of one table are reported, warnings included.
const maxDecoded = 200

// placed gives an error of Set its place, unless Set knew a better one. Set
// may return an Error to say that it is only a warning.
func placed(err error, at Pos) Error {
	e, ok := errors.AsType[Error](err)
	if !ok {
		return Error{Pos: at, Message: err.Error()}
	}
	if e.Pos == (Pos{}) {
		e.Pos = at
	}
	return e
}

// Suggestions cost a comparison with every name: only for keys that could be
// a slip, and only so many of them.
const (
	slipDistance   = 2
	maxSlipKey     = 64
	maxSuggestions = 100
)

// Unknown reports the keys of f, each once, that nobody knows: not the
// dialect, not known, and not a placeholder. They are warnings unless the file
// is strict. names are what "did you mean" may suggest; hints say it of words that
// are nowhere near, such as those of other programs.
func Unknown(f *File, known func(string) bool, names []string, hints map[string]string) Errors {
	var errs Errors
	seen := map[string]bool{}
	for _, p := range f.Pairs {
		if seen[p.Key] || f.Placeholders[p.Key] || isWord(p.Key) || known(p.Key) {
			continue
		}
		seen[p.Key] = true
		message := fmt.Sprintf("unknown option %q", p.Key)
		if len(seen) <= maxSuggestions {
			if hint := hints[p.Key]; hint != "" {
				message += "; " + hint
			} else if name := Similar(p.Key, names); name != "" {
				message += fmt.Sprintf("; did you mean %q?", name)
			}
		}
		errs = append(errs, Error{Pos: p.Pos, Message: message, Warning: !f.Strict})
	}
	return errs
}

// Similar is the name nearest to key, the first of equals, or "" if none is
// near enough to be a slip.
func Similar(key string, names []string) string {
	if len(key) > maxSlipKey {
		return ""
	}
	best, distance := "", min(slipDistance, len(key)/3)+1
	for _, name := range names {
		if d := levenshtein.ComputeDistance(key, name); d < distance {
			best, distance = name, d
		}
	}
	return best
}
