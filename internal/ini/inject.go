package ini

// inject puts the texts of inject-before and inject-after around that of a
// file. False means that one of them cannot be read.
func (l *loader) inject(file part) (parts []part, ok bool) {
	texts := func(names []Pair) bool {
		for _, p := range names {
			text, err := l.read(p.Value)
			if err != nil && !l.stopped {
				l.fail(p.Pos, "%s: cannot read %s: %s", p.Key, p.Value, reason(err))
			}
			if err != nil {
				return false
			}
			parts = append(parts, part{p.Value, text})
		}
		return true
	}
	if !texts(l.before) {
		return nil, false
	}
	parts = append(parts, file)
	return parts, texts(l.after)
}
