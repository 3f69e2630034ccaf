package ini

import (
	"bytes"
	"slices"
	"strings"
)

// line is a line of a file after magic variables, without its blanks.
type line struct {
	text    string
	pos     Pos    // where it starts in the original file
	unknown []byte // magic letters that are none, and were removed
	joined  bool   // a % at the end of the line swallowed the line break
}

// part is a piece of the text that is read as one: a file, or what inject-before
// and inject-after put around it.
type part struct {
	name string
	text []byte
}

const blanks = " \t\r"

// scan expands the magic variables of a text and splits it into lines; empty
// ones are left out. False means that it failed. The variables come first, as
// in uWSGI, so a % swallows whatever byte follows it, a line break included.
func (l *loader) scan(parts []part) (lines []line, ok bool) {
	text, at, ok := l.join(parts)
	if !ok {
		return nil, false
	}
	var buf []byte
	cur := line{pos: at.Pos}
	flush := func() {
		if cur.text = strings.Trim(string(buf), blanks); cur.text != "" {
			lines = append(lines, cur)
		}
		buf = buf[:0]
		cur = line{pos: at.Pos}
	}
	for i := 0; i < len(text); i++ {
		at.pass(text[i])
		if !l.acceptLines(cur, len(lines), len(buf)) {
			return nil, false
		}
		switch c := text[i]; {
		case c == '\n':
			flush()
		case c != '%':
			buf = append(buf, c)
		case i+1 == len(text): // the last byte is dropped
		default:
			i++
			at.pass(text[i])
			cur.joined = cur.joined || text[i] == '\n'
			value := l.magicValue(text[i], &cur)
			if !l.spend(cur.pos, len(value)) {
				return nil, false
			}
			buf = append(buf, value...)
		}
	}
	flush()
	return lines, true
}

// acceptLines checks the limits for the lines of a text: n of them, and those
// bytes of the one that is being read. Comments and headers count, too.
func (l *loader) acceptLines(cur line, n, bytes int) bool {
	switch {
	case n > l.Limits.Pairs:
		l.stop(cur.pos, "there are more than %d options or other lines", l.Limits.Pairs)
	case bytes > 2*l.Limits.Value: // a key and a value
		l.stop(cur.pos, "an option of more than %d bytes", l.Limits.Value)
	}
	return !l.stopped
}

// join puts the parts together; the cursor stands at the first byte.
func (l *loader) join(parts []part) (text []byte, at cursor, ok bool) {
	for _, p := range parts {
		data := bytes.TrimPrefix(p.text, []byte("\xef\xbb\xbf"))
		if before, _, found := bytes.Cut(data, []byte{0}); found {
			l.fail(Pos{p.name, 1 + bytes.Count(before, []byte{'\n'})}, "there is a NUL byte; is this a text file?")
			return nil, cursor{}, false
		}
		if len(data) > 0 {
			text = append(text, data...)
			at.rest = append(at.rest, part{p.name, data})
		}
	}
	at.next()
	return text, at, true
}

// cursor is a place in parts that are read as one.
type cursor struct {
	Pos
	left int // bytes of this part
	rest []part
}

// pass moves it beyond the byte c.
func (at *cursor) pass(c byte) {
	if c == '\n' {
		at.Line++
	}
	if at.left--; at.left == 0 {
		at.next()
	}
}

func (at *cursor) next() {
	if len(at.rest) > 0 {
		at.Pos, at.left, at.rest = Pos{at.rest[0].name, 1}, len(at.rest[0].text), at.rest[1:]
	}
}

func (l *loader) magicValue(c byte, cur *line) string {
	switch {
	case c == '%':
		return "%"
	case c == '(':
		return "%("
	case strings.IndexByte(knownMagic, c) < 0 && c != '\n':
		cur.unknown = append(cur.unknown, c)
	}
	return l.magic[c]
}

// pairs are the options of the wanted sections. All sections of that name
// count; what comes before the first section does not.
func (l *loader) pairs(name, section string, lines []line) []Pair {
	wanted := l.Sections
	if section != "" {
		wanted = []string{section}
	}
	var body []line
	var close []string // headers that were meant, perhaps
	in := false
	for _, ln := range lines {
		at := ln.pos
		switch ln.text[0] {
		case '[':
			// uWSGI cuts the last byte, whatever it is.
			header := ln.text[1:max(1, len(ln.text)-1)]
			if l.Every && section == "" {
				l.headers = append(l.headers, Header{header, at})
				in = true
				continue
			}
			in = slices.Contains(wanted, header)
			if !in && slices.ContainsFunc(wanted, func(w string) bool { return slip(ln.text, w) }) {
				close = append(close, ln.text)
				l.warn(at, "%s is another section than [%s]; blanks, letters' case and the closing bracket count", ln.text, wanted[0])
			}
		case ';', '#':
			if ln.joined {
				l.warn(at, "the %% at the end of this comment makes the next line part of it; write %%%%")
			}
		default:
			switch {
			case in:
				l.warnMagic(at, ln)
				body = append(body, ln)
			case l.Every && section == "":
				l.fail(at, "%s is in no section, so it would not count; write it below one", ln.text)
			}
		}
	}
	if len(body) == 0 && !l.stopped && len(close) == 0 && !l.Every {
		l.warn(Pos{File: name}, "there are no options in section [%s]", strings.Join(wanted, "] or ["))
	}
	return l.split(name, body)
}

// slip says whether a section's line was probably meant as [want].
func slip(text, want string) bool {
	return strings.EqualFold(strings.Trim(text, "[] \t"), want)
}

func (l *loader) warnMagic(at Pos, ln line) {
	if ln.joined {
		l.warn(at, "the %% at the end of this line makes the next line part of it; write %%%%")
	}
	for _, c := range ln.unknown {
		l.warn(at, "%q is no magic variable and is removed; write %%%% for a percent sign", "%"+string(rune(c)))
	}
}
