package emperor

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// LogLine is one line of a vassal's output.
type LogLine struct {
	Time time.Time `json:"time,omitzero"`  // when it came, as the emperor saw it; zero: it is from a file
	Text string    `json:"text"`           // without its end; control bytes and what is no UTF-8 as \xNN
	File string    `json:"file,omitempty"` // that it was read from, of those that logto has; empty: memory

	// Next is what to ask for after this line, of whoever has the vassal by then.
	// Only followers get it.
	Next string `json:"next,omitempty"`

	end int64 // the position behind it
}

// piece is a part of a history, copied out of it.
type piece struct {
	kept  []byte
	marks []mark // by position; the first is at or before the first byte kept
	total int64  // the position behind the last byte
	began time.Time
}

// mark says when the bytes from a position on came.
type mark struct {
	from int64
	at   int64 // milliseconds since 1970
}

// first is the position of the first byte kept.
func (p *piece) first() int64 { return p.total - int64(len(p.kept)) }

// from leaves out what is before a position.
func (p *piece) from(pos int64) {
	p.kept = p.kept[min(max(pos-p.first(), 0), int64(len(p.kept))):]
	p.marks = marksFrom(p.marks, p.first())
}

// fromLine leaves out the rest of the line that it begins in.
func (p *piece) fromLine() {
	if i := bytes.IndexByte(p.kept[:min(len(p.kept), outputLine)], '\n'); i >= 0 {
		p.from(p.first() + int64(i) + 1)
	}
}

// marksFrom are the marks of what comes from a position on.
func marksFrom(marks []mark, from int64) []mark {
	for len(marks) > 1 && marks[1].from <= from {
		marks = marks[1:]
	}
	return marks
}

// lines are the lines that are kept, and the position behind them. One without
// an end counts only if the end is not to be waited for.
func (p *piece) lines(wait bool) ([]LogLine, int64) {
	var all []LogLine
	rest, pos, marks := p.kept, p.first(), p.marks
	for len(rest) > 0 {
		n, line := cutLine(rest)
		if n == 0 {
			if wait {
				break
			}
			n, line = len(rest), rest
		}
		marks = marksFrom(marks, pos)
		rest, pos = rest[n:], pos+int64(n)
		all = append(all, LogLine{Time: time.UnixMilli(marks[0].at), Text: printable(line), end: pos})
	}
	return all, pos
}

// cutLine is the first line of b, or the part of a longer one that counts as a
// line, and how many bytes it takes up; 0: it is not whole yet.
func cutLine(b []byte) (n int, line []byte) {
	i := bytes.IndexByte(b[:min(len(b), outputLine+1)], '\n')
	switch {
	case i >= 0:
		return i + 1, b[:i]
	case len(b) > outputLine:
		return outputLine, b[:outputLine]
	}
	return 0, nil
}

// printable keeps a vassal from writing to the operator's terminal with
// control bytes (C1 too, which terminals take in UTF-8), or forging lines of
// others.
func printable(line []byte) string {
	line = bytes.TrimSuffix(line, []byte("\r"))
	plain := func(r rune) bool { return r >= ' ' && r < 0x7f || r > 0x9f || r == '\t' }
	if utf8.Valid(line) && !bytes.ContainsFunc(line, func(r rune) bool { return !plain(r) }) {
		return string(line)
	}
	var s strings.Builder
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		if plain(r) && (r != utf8.RuneError || n > 1) {
			s.WriteRune(r)
		} else {
			for _, c := range line[:n] {
				fmt.Fprintf(&s, `\x%02x`, c)
			}
		}
		line = line[n:]
	}
	return s.String()
}
