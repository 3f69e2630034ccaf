package ini

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// itemRef is replaced in the values of a block's body.
const itemRef = "%(_)"

// block is an open if or for.
type block struct {
	Pair
	end  string              // what closes it, for messages
	body func(*loader, Pair) // adds one option of the body, as often as it counts
}

func newBlock(p Pair, w word) *block {
	b := &block{Pair: p, end: "endif"}
	switch w.act {
	case actFor:
		b.end = "endfor"
		var items []string
		var done bool
		b.body = func(l *loader, p Pair) {
			if !done {
				items, done = l.items(b.Pair, w.base), true
			}
			for _, item := range items {
				if l.stopped {
					return
				}
				l.addItem(p, item)
			}
		}
	default:
		b.body = func(l *loader, p Pair) {
			holds, item := l.condition(b.Pair, w.base)
			switch {
			case holds != (w.act == actIf):
				l.Skipped(p)
			case item == nil:
				l.add(p, false)
			default:
				l.addItem(p, *item)
			}
		}
	}
	return b
}

// addItem adds an option of a body with %(_) replaced.
func (l *loader) addItem(p Pair, item string) {
	n := strings.Count(p.Value, itemRef)
	if n > 0 && len(p.Value)+n*len(item) > l.Limits.Value {
		l.stop(p.Pos, "%s: more than %d bytes", p.Key, l.Limits.Value)
		return
	}
	p.Value = strings.ReplaceAll(p.Value, itemRef, item)
	l.add(p, false)
}

// items are what a loop goes through.
func (l *loader) items(p Pair, kind string) []string {
	switch kind {
	case "times":
		n := atoi(p.Value)
		if n > int64(l.Limits.Pairs) {
			l.stop(p.Pos, "%s = %s: there are more than %d options", p.Key, p.Value, l.Limits.Pairs)
			return nil
		}
		var items []string
		for i := range n {
			items = append(items, strconv.FormatInt(i+1, 10))
		}
		return items
	case "glob":
		return l.globItems(p.Value)
	case "readline":
		data, err := l.readFile(p.Value)
		if err != nil && !l.stopped {
			l.warn(p.Pos, "%s: cannot read %s: %s; the loop does nothing, as in uWSGI", p.Key, p.Value, reason(err))
		}
		if err != nil || len(data) == 0 {
			return nil
		}
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], "\r")
		}
		return lines
	}
	return strings.FieldsFunc(p.Value, isSpace)
}

// globItems are the matches, written as the pattern is: relative or absolute.
// Without a match it is the pattern itself, as in uWSGI.
func (l *loader) globItems(pattern string) []string {
	full := l.path(pattern)
	prefix := strings.TrimSuffix(full, pattern)
	quoted := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(prefix)
	var items []string
	for _, match := range l.Glob(quoted + pattern) {
		items = append(items, strings.TrimPrefix(match, prefix))
	}
	if items == nil || pattern == "" {
		return []string{pattern}
	}
	return items
}

// condition evaluates the base of an if, and says what %(_) means in its body;
// nil is: nothing. It is asked for each option of the body, since one of them
// may change the answer.
func (l *loader) condition(p Pair, kind string) (holds bool, item *string) {
	arg := p.Value
	switch kind {
	case "env":
		return compare(arg, l.LookupEnv)
	case "opt":
		return compare(arg, l.lookup)
	case "reload":
		return l.Reload, nil
	case "exists":
		holds = l.Readable(l.path(arg))
	case "file":
		info, err := l.Stat(l.path(arg))
		holds = err == nil && info.Mode().IsRegular()
	case "dir":
		info, err := l.Stat(l.path(arg))
		holds = err == nil && info.IsDir()
	case "plugin":
		holds = l.plugins[arg]
	case "hostname":
		holds = l.magic['h'] == arg
	case "hostname-match":
		re, err := regexp.Compile(arg)
		if err != nil {
			l.fail(p.Pos, "%s: %v", p.Key, err)
			return false, nil
		}
		holds = re.MatchString(l.magic['h'])
	default:
		panic(fmt.Sprintf("ini: no condition %q", kind)) // words has one that is missing here
	}
	return holds, &arg
}

// compare is NAME or NAME=value against a lookup.
func compare(arg string, lookup func(string) (string, bool)) (bool, *string) {
	name, want, compared := strings.Cut(arg, "=")
	value, ok := lookup(name)
	if !ok {
		return false, nil
	}
	return !compared || value == want, &value
}

// lookup is the first value of a key. Who asks uses it as a placeholder.
func (l *loader) lookup(key string) (string, bool) {
	i, ok := l.first[key]
	if key == "ini" && (!ok || i >= l.ofEnviron) {
		return l.given, true // uwsgi --ini NAME: options of the command line come before those of files
	}
	if !ok {
		if l.Literal {
			l.used[key] = true // another file that is not read here may give it
		}
		return "", false
	}
	l.used[key] = true
	return l.entries[i].Value, true
}
