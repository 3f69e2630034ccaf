package ini

import (
	"strconv"
	"strings"
)

// declare makes a new option: name=template, where the template is
// option=value;option=value with $1, $2, … for the words of its value.
func (l *loader) declare(p Pair) {
	name, template, ok := strings.Cut(p.Value, "=")
	switch {
	case !ok:
		l.fail(p.Pos, "%s: want name=option=value;option=value, not %q", p.Key, p.Value)
	case l.isOption(name) || actionOf(name) != actNone:
		l.warn(p.Pos, "%s: there is an option %q already; it keeps its meaning", p.Key, name)
	default:
		l.declared[name] = template
		l.defined[name] = true
	}
}

// use does what a declared option stands for; index is the entry that gets
// what it makes. As in uWSGI these options act at once, whatever stands above
// them, and the passes do not see them.
func (l *loader) use(p Pair, index int) {
	if l.depth++; l.depth > l.Limits.Depth {
		l.stop(p.Pos, "%s: more than %d declared options and files use each other", p.Key, l.Limits.Depth)
		return
	}
	defer func() { l.depth-- }()
	words := strings.FieldsFunc(p.Value, isSpace)
	if p.Value == "" {
		words = []string{""}
	}
	for step := range strings.FieldsFuncSeq(l.declared[p.Key], func(r rune) bool { return r == ';' }) {
		key, value, ok := strings.Cut(step, "=")
		if !ok {
			l.warn(p.Pos, "%s stands for %q, which is no option=value: what follows is ignored, as in uWSGI", p.Key, step)
			return
		}
		made := Pair{Key: l.fill(p, key, words), Value: l.fill(p, value, words), Pos: p.Pos, Made: true}
		if l.stopped || !l.accept(made) {
			return
		}
		l.make(made, index)
	}
}

// make lets a made option act. It is not listed, unless it sets another.
func (l *loader) make(p Pair, index int) {
	act := actionOf(p.Key)
	_, declared := l.declared[p.Key]
	switch {
	case declared:
		l.use(p, index)
	case p.Key == inheritKey:
		l.include(p)
	case p.Key == declareKey:
		l.declare(p)
	case isWord(p.Key):
		l.act(act, p)
	default:
		l.act(act, p)
		l.entries[index].made = append(l.entries[index].made, p)
	}
}

// fill replaces $1, $2, … one after the other; those without a word stay.
func (l *loader) fill(p Pair, text string, words []string) string {
	for i, word := range words {
		number := "$" + strconv.Itoa(i+1)
		n := strings.Count(text, number)
		if n == 0 {
			continue
		}
		size := len(text) + n*len(word)
		if size > l.Limits.Value {
			l.stop(p.Pos, "%s stands for more than %d bytes", p.Key, l.Limits.Value)
		}
		if !l.spend(p.Pos, size) {
			return text
		}
		text = strings.ReplaceAll(text, number, word)
	}
	return text
}

func isSpace(r rune) bool { return r == ' ' }
