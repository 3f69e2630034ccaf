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
}

// history is the last of what a vassal wrote, with the times at which it came.
type history struct {
	kept  []byte
	marks []mark // by position; the first is at or before the first byte kept
	total int64  // bytes ever taken: the position behind the last
	began time.Time
}

// mark says when the bytes from a position on came.
type mark struct {
	from int64
	at   int64 // milliseconds since 1970
}

// maxMarks bounds the moments that are remembered; what is older than the last
// of them is forgotten, however short.
const maxMarks = 8192

// add remembers what came just now.
func (h *history) add(b []byte, now time.Time) {
	if at := now.UnixMilli(); len(h.marks) == 0 || h.marks[len(h.marks)-1].at != at {
		h.marks = append(h.marks, mark{h.total, at})
	}
	h.total += int64(len(b))
	h.kept = append(h.kept, b...)
	if len(h.kept) > 2*outputKept {
		h.forget(h.total - outputKept)
	}
	if len(h.marks) > 2*maxMarks {
		h.forget(h.marks[len(h.marks)-maxMarks].from)
	}
}

// first is the position of the first byte kept.
func (h *history) first() int64 { return h.total - int64(len(h.kept)) }

// forget forgets what is before a position, and the rest of the line there.
func (h *history) forget(before int64) {
	rest := h.kept[before-h.first():]
	if i := bytes.IndexByte(rest[:min(len(rest), outputLine)], '\n'); i >= 0 {
		rest = rest[i+1:]
	}
	h.kept = bytes.Clone(rest)
	h.marks = append([]mark(nil), marksFrom(h.marks, h.first())...)
}

// marksFrom are the marks of what comes from a position on.
func marksFrom(marks []mark, from int64) []mark {
	for len(marks) > 1 && marks[1].from <= from {
		marks = marks[1:]
	}
	return marks
}

// since copies what is kept from a position on.
func (h *history) since(from int64) *history {
	from = min(max(from, h.first()), h.total)
	return &history{kept: bytes.Clone(h.kept[from-h.first():]), marks: append([]mark(nil), marksFrom(h.marks, from)...), total: h.total, began: h.began}
}

// lines are the lines that are kept, and the position behind them. One without
// an end counts only if the end is not to be waited for.
func (h *history) lines(wait bool) ([]LogLine, int64) {
	var all []LogLine
	rest, pos, marks := h.kept, h.first(), h.marks
	for len(rest) > 0 {
		n, line := cutLine(rest)
		if n == 0 {
			if wait {
				break
			}
			n, line = len(rest), rest
		}
		marks = marksFrom(marks, pos)
		all = append(all, LogLine{Time: time.UnixMilli(marks[0].at), Text: printable(line)})
		rest, pos = rest[n:], pos+int64(n)
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
