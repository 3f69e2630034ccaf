package ini

import (
	"bytes"
	"slices"
	"strings"
)

// line is a line of a file after magic variables, without its blanks.
type line struct {
	text    string
	no      int    // of the original file, where it starts
	unknown []byte // magic letters that are none, and were removed
	joined  bool   // a % at the end of the line swallowed the line break
}

const blanks = " \t\r"

// scan expands the magic variables of a file and splits it into lines; empty
// ones are left out. False means that it failed. The variables come first, as in uWSGI, so a % swallows
// whatever byte follows it, a line break included.
func (l *loader) scan(name string, text []byte) (lines []line, ok bool) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if i := bytes.IndexByte(text, 0); i >= 0 {
		l.fail(Pos{name, 1 + bytes.Count(text[:i], []byte{'\n'})}, "there is a NUL byte; is this a text file?")
		return nil, false
	}
	var buf []byte
	no := 1
	cur := line{no: no}
	flush := func() {
		if cur.text = strings.Trim(string(buf), blanks); cur.text != "" {
			lines = append(lines, cur)
		}
		buf = buf[:0]
		cur = line{no: no}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			no++
			flush()
		case c != '%':
			buf = append(buf, c)
		case i+1 == len(text): // the last byte is dropped
		default:
			i++
			if text[i] == '\n' {
				no++
				cur.joined = true
			}
			value := l.magicValue(text[i], &cur)
			if !l.spend(Pos{name, cur.no}, len(value)) {
				return nil, false
			}
			buf = append(buf, value...)
		}
	}
	flush()
	return lines, true
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
		at := Pos{name, ln.no}
		switch ln.text[0] {
		case '[':
			// uWSGI cuts the last byte, whatever it is.
			header := ln.text[1:max(1, len(ln.text)-1)]
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
			if in {
				l.warnMagic(at, ln)
				body = append(body, ln)
			}
		}
	}
	if len(body) == 0 && !l.stopped && len(close) == 0 {
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
