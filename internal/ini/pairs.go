package ini

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	iniv1 "gopkg.in/ini.v1"
)

// options switch off what the library has and the dialect has not.
var options = iniv1.LoadOptions{
	IgnoreContinuation:      true,
	IgnoreInlineComment:     true,
	PreserveSurroundedQuote: true,
	KeyValueDelimiters:      "=",
}

// split turns lines into pairs. The library does it for the lines that it
// takes literally; each key gets the line's index as a prefix, so that order,
// repeated keys and line numbers survive. The others are split here.
func (l *loader) split(name string, lines []line) []Pair {
	pairs := make([]Pair, len(lines))
	var doc strings.Builder
	for i, ln := range lines {
		pairs[i].Pos = ln.pos
		if literal(ln.text) {
			fmt.Fprintf(&doc, "%d:%s\n", i, ln.text)
			continue
		}
		key, value, _ := strings.Cut(ln.text, "=")
		pairs[i].Key = strings.TrimRight(key, blanks)
		pairs[i].Value = strings.TrimLeft(value, blanks)
	}
	f, err := iniv1.LoadSources(options, []byte(doc.String()))
	if err != nil {
		l.fail(Pos{File: name}, "cannot parse: %v", err)
		return nil
	}
	for _, k := range f.Section("").Keys() {
		index, key, _ := strings.Cut(k.Name(), ":")
		i, err := strconv.Atoi(index)
		if err != nil || i >= len(pairs) {
			l.fail(Pos{File: name}, "cannot parse %q", k.Name())
			return nil
		}
		pairs[i].Key, pairs[i].Value = key, k.Value()
	}
	for _, p := range pairs {
		l.warnComment(p)
	}
	return pairs
}

// literal says whether the library splits a line as uWSGI does: it has a
// delimiter, no quote that the library would open (it looks for the end on
// later lines), and no blank of other alphabets, which it would strip.
func literal(text string) bool {
	_, value, found := strings.Cut(text, "=")
	value = strings.TrimLeft(value, blanks)
	if !found || strings.HasPrefix(value, "`") || strings.HasPrefix(value, `"""`) {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

// shellLike are the options whose values may well hold a semicolon.
var shellLike = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`command|exec|hook|daemon|cron|env|patch|route|call|print`)
})

// warnComment finds what was probably meant as a comment after the value. A
// semicolon may be part of a command.
func (l *loader) warnComment(p Pair) {
	i := strings.Index(p.Value, " #")
	if i < 0 && !shellLike().MatchString(p.Key) {
		i = strings.Index(p.Value, " ; ")
	}
	if i >= 0 {
		l.warn(p.Pos, "%q is part of the value, not a comment; put comments on lines of their own", p.Value[i+1:])
	}
}
