package ini

import "strings"

// add takes one option in the order of the file: into the block that is open,
// or into the list; immediate options act here. placeholder is for set-ph.
func (l *loader) add(p Pair, placeholder bool) {
	if l.stopped {
		return
	}
	l.at = p.Pos
	if by, forbidden := l.filters.forbid(p.Key); forbidden {
		l.fail(p.Pos, "option %q is forbidden by the %s of %s", p.Key, by.Key, by.Pos)
		return
	}
	act := actionOf(p.Key)
	if !l.running {
		if p.Key == "else" {
			l.warn(p.Pos, "else does nothing in uWSGI 2.0: what follows still belongs to the first branch; use endif and if-not-…")
		}
		if act == actEnd {
			l.block = nil
		}
		if l.block != nil {
			before := len(l.problems)
			l.running = true
			l.block.body(l, p)
			l.running = false
			if opens(act) && len(l.problems) == before {
				l.warn(p.Pos, "%s inside %s of %s, which is not taken here: if and for cannot be nested, and the first end closes both, as in uWSGI", p.Key, l.block.Key, l.block.Pos)
			}
			return
		}
	}
	if !l.accept(p) {
		return
	}
	index := len(l.entries)
	l.entries = append(l.entries, entry{Pair: p, aside: l.aside})
	if _, ok := l.first[p.Key]; !ok {
		l.first[p.Key] = index
	}
	if placeholder {
		l.entries[index].done = true
		l.defined[p.Key] = true
		if l.isOption(p.Key) {
			l.fail(p.Pos, "%q cannot be a placeholder: it is an option", p.Key)
		}
		return
	}
	if act != actNone {
		l.entries[index].done = true
		l.act(act, p)
		l.warnLiteral(p)
	} else if _, ok := l.declared[p.Key]; ok {
		l.entries[index].done = true
		l.use(p, index)
	}
}

// isOption says whether somebody has the option: the dialect, the caller, or
// the file that declared it.
func (l *loader) isOption(name string) bool {
	_, declared := l.declared[name]
	return declared || isWord(name) || l.IsOption(name)
}

func opens(act action) bool { return act == actFor || act == actIf || act == actIfNot }

func (l *loader) failNested(p Pair) {
	l.fail(p.Pos, "%s inside %s of %s: if and for cannot be nested", p.Key, l.block.Key, l.block.Pos)
}

// accept checks the limits for one more option.
func (l *loader) accept(p Pair) bool {
	const overhead = 64 // so that many small options cost, too
	l.count++
	switch {
	case l.count > l.Limits.Pairs:
		l.stop(p.Pos, "there are more than %d options", l.Limits.Pairs)
	case len(p.Key) > l.Limits.Value || len(p.Value) > l.Limits.Value:
		l.stop(p.Pos, "an option of more than %d bytes", l.Limits.Value)
	default:
		return l.spend(p.Pos, len(p.Key)+len(p.Value)+overhead)
	}
	return false
}

// act does what an immediate option does.
func (l *loader) act(act action, p Pair) {
	switch act {
	case actFor, actIf, actIfNot:
		if l.block != nil {
			l.failNested(p)
			return
		}
		l.block = newBlock(p, words[p.Key])
	case actSet, actPlaceholder:
		key, value, ok := strings.Cut(p.Value, "=")
		if !ok {
			l.fail(p.Pos, "%s: want name=value, not %q", p.Key, p.Value)
			return
		}
		l.add(Pair{Key: key, Value: value, Pos: p.Pos}, act == actPlaceholder || l.strict)
	case actStrict:
		l.strict = ParseBool(p.Value)
	case actInclude:
		l.include(p)
	case actIni:
		l.load(source{name: p.Value, pos: p.Pos})
	case actPlugin:
		for name := range strings.SplitSeq(p.Value, ",") {
			l.plugins[name] = true
		}
	case actDeclare:
		l.declare(p)
	case actInjectBefore:
		l.before = append(l.before, p)
	case actInjectAfter:
		l.after = append(l.after, p)
	case actBlacklist, actWhitelist:
		l.filters.set(act, p)
	case actResolve:
		l.resolve(p)
	case actRefuse:
		l.fail(p.Pos, "uWSGI's option %q is not supported here; write what it does into the file, or remove it", p.Key)
	}
}

// include loads a file that include or inherit names. uWSGI takes the format
// from the end of the name; ini is the one that we have.
func (l *loader) include(p Pair) {
	name, _ := splitSection(p.Value)
	if !strings.HasSuffix(name, ".ini") {
		l.fail(p.Pos, "%s: %q is not the name of an ini; it must end in .ini (for another section of this file write ini = :section)", p.Key, p.Value)
		return
	}
	l.load(source{name: p.Value, pos: p.Pos})
}

// warnLiteral tells that a reference in an immediate option is not one.
func (l *loader) warnLiteral(p Pair) {
	switch act := actionOf(p.Key); {
	case act == actSet, act == actPlaceholder, act == actEnd: // the text goes elsewhere, or nowhere
		return
	case act == actDeclare, scheme(p.Value) == "exec": // it is a template's, or the shell's
		return
	}
	for _, start := range []string{"$(", "@(", "%("} {
		if strings.Contains(p.Value, start) {
			l.warn(p.Pos, "%s…) is not expanded in %s, which is done while the file is read; only magic variables (%%n, %%d, …) are", start, p.Key)
			return
		}
	}
}
