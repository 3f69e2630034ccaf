package ini

import (
	"errors"
	"strings"
)

// pass is one of the three that go over all values when the files are read.
type pass struct {
	symbol byte
	// value of the text between the parentheses; false leaves it as it is.
	value func(l *loader, key string) (string, bool, error)
}

// In uWSGI's order: each sees what the one before it made.
var passes = []pass{
	{'$', func(l *loader, key string) (string, bool, error) {
		value, ok := l.LookupEnv(key)
		return value, ok, nil
	}},
	{'@', func(l *loader, key string) (string, bool, error) {
		if l.Literal {
			return "", false, nil
		}
		value, err := l.content(key)
		return value, err == nil, err
	}},
	{'%', func(l *loader, key string) (string, bool, error) {
		return l.placeholder(key)
	}},
}

// expand runs the passes over all options that have not acted already.
func (l *loader) expand() {
	for _, pass := range passes {
		for i := range l.entries {
			if e := &l.entries[i]; !e.done && !l.stopped {
				l.at = e.Pos
				e.Value = l.expandValue(*e, pass)
			}
		}
	}
	for _, e := range l.entries {
		if !e.done && !l.stopped {
			l.warnStart(e)
		}
	}
}

var errTooLong = errors.New("too long")

// expandValue replaces the references of one pass in a value. After each
// replacement it looks at the whole value again, so references may be made of
// references; but not at its first byte: that is uWSGI's quirk, and files
// depend on what it leaves alone.
func (l *loader) expandValue(e entry, p pass) string {
	const overhead = 64 // a replacement costs, even if nothing grows
	v := e.Value
	for from := 0; ; from = 1 {
		start, end, replacement, found := l.findReference(e, v, from, p)
		if !found {
			return v
		}
		size := len(v) - (end - start) + len(replacement)
		if size > l.Limits.Value {
			l.stop(e.Pos, "%s grows beyond %d bytes; does it refer to itself?", e.Key, l.Limits.Value)
			return v
		}
		if !l.spend(e.Pos, size+overhead) {
			return v
		}
		v = v[:start] + replacement + v[end:]
	}
}

// findReference finds the first reference in v[from:] that has a value:
// v[start:end] is to be replaced. The innermost comes first: a symbol inside
// of a reference starts a new one.
func (l *loader) findReference(e entry, v string, from int, p pass) (start, end int, replacement string, found bool) {
	const outside, symbol, inside = 0, 1, 2
	state, depth := outside, 0
	for i := from; i < len(v); i++ {
		switch c := v[i]; {
		case c == p.symbol:
			state = symbol
		case state == symbol && c == '(':
			state, depth, start = inside, 0, i-1
		case state != inside:
			state = outside
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ')':
			state = outside
			key := v[start+2 : i]
			if key == "" {
				continue
			}
			value, ok, err := p.value(l, key)
			if err != nil && !l.stopped {
				l.fail(e.Pos, "%s: %s: %s", e.Key, v[start:i+1], reason(err))
			}
			if l.stopped {
				return 0, 0, "", false
			}
			if ok {
				return start, i + 1, value, true
			}
		}
	}
	return 0, 0, "", false
}

// warnStart tells of the quirk where it strikes: a reference at the very start
// of a value whose value was a reference again.
func (l *loader) warnStart(e entry) {
	if !strings.HasPrefix(e.Value, "%(") {
		return
	}
	key, _, ok := strings.Cut(e.Value[2:], ")")
	if _, defined := l.first[key]; ok && defined {
		l.warn(e.Pos, "%s: %%(%s) stays as it is: uWSGI does not look twice at the start of a value; move the options that it is made of above it", e.Key, key)
	}
}
