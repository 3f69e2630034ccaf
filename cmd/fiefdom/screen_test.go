package main

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// screen is as much of a vt100 as shows what a program draws: text, moves of
// the cursor, erasing and scrolling. What it does not know it ignores.
type screen struct {
	mu     sync.Mutex
	cells  [][]rune
	x, y   int
	rest   []byte // of a sequence that has not come whole
	raw    strings.Builder
	strays []string // sequences that it does not know
}

func newScreen(rows, cols int) *screen {
	s := &screen{}
	s.resize(rows, cols)
	return s
}

func (s *screen) resize(rows, cols int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.cells
	s.cells = make([][]rune, rows)
	for y := range s.cells {
		s.cells[y] = []rune(strings.Repeat(" ", cols))
		if y < len(old) {
			copy(s.cells[y], old[y])
		}
	}
	s.y, s.x = min(s.y, rows-1), min(s.x, cols-1)
}

// text is what is on the screen, without spaces at the ends of lines.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.cells {
		b.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
	return b.String()
}

func (s *screen) bytes() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw.String()
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(b)
	s.rest = append(s.rest, b...)
	for len(s.rest) > 0 {
		n := s.next(s.rest)
		if n == 0 {
			break
		}
		s.rest = s.rest[n:]
	}
	return len(b), nil
}

// next takes a character or sequence and returns its length, 0 if it is not whole.
func (s *screen) next(b []byte) int {
	switch {
	case b[0] == 0x1b:
		return s.escape(b)
	case b[0] == '\r':
		s.x = 0
	case b[0] == '\n':
		s.down()
	case b[0] == '\b':
		s.x = max(0, s.x-1)
	case b[0] == '\t':
		s.x = min(len(s.cells[0])-1, (s.x/8+1)*8)
	case b[0] < ' ':
	default:
		if !utf8.FullRune(b) {
			return 0
		}
		r, n := utf8.DecodeRune(b)
		if s.x >= len(s.cells[0]) {
			s.x = 0
			s.down()
		}
		s.cells[s.y][s.x] = r
		s.x++
		return n
	}
	return 1
}

func (s *screen) down() {
	if s.y < len(s.cells)-1 {
		s.y++
		return
	}
	s.cells = append(s.cells[1:], []rune(strings.Repeat(" ", len(s.cells[0]))))
}

func (s *screen) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case ']', 'P': // a title and the like, up to BEL or ST
		for i := 2; i < len(b); i++ {
			if b[i] == 7 || b[i] == '\\' && b[i-1] == 0x1b {
				return i + 1
			}
		}
		return 0
	case 'M':
		s.y = max(0, s.y-1)
		return 2
	case '(', ')':
		return min(len(b), 3)
	case '[':
		for i := 2; i < len(b); i++ {
			if b[i] >= '@' && b[i] <= '~' {
				s.control(string(b[2:i]), b[i])
				return i + 1
			}
		}
		return 0
	}
	return 2
}

func (s *screen) control(params string, final byte) {
	var n []int
	for p := range strings.SplitSeq(params, ";") {
		i, _ := strconv.Atoi(p)
		n = append(n, i)
	}
	first := max(1, n[0])
	rows, cols := len(s.cells), len(s.cells[0])
	switch final {
	case 'H', 'f':
		s.y, s.x = min(first, rows)-1, 0
		if len(n) > 1 {
			s.x = min(max(1, n[1]), cols) - 1
		}
	case 'A':
		s.y = max(0, s.y-first)
	case 'B':
		s.y = min(rows-1, s.y+first)
	case 'C':
		s.x = min(cols-1, s.x+first)
	case 'D':
		s.x = max(0, s.x-first)
	case 'G':
		s.x = min(first, cols) - 1
	case 'd':
		s.y = min(first, rows) - 1
	case 'K':
		from, to := s.x, cols
		switch n[0] {
		case 1:
			from, to = 0, s.x+1
		case 2:
			from = 0
		}
		s.erase(s.y, from, to)
	case 'P':
		line := s.cells[s.y]
		copy(line[s.x:], line[min(cols, s.x+first):])
		s.erase(s.y, max(s.x, cols-first), cols)
	case '@':
		line := s.cells[s.y]
		copy(line[min(cols, s.x+first):], line[s.x:])
		s.erase(s.y, s.x, min(cols, s.x+first))
	case 'L', 'M': // lines, down to the last
		for range first {
			blank := []rune(strings.Repeat(" ", cols))
			if below := s.cells[s.y:]; final == 'L' {
				copy(below[1:], below)
				below[0] = blank
			} else {
				copy(below, below[1:])
				below[len(below)-1] = blank
			}
		}
	case 'X':
		s.erase(s.y, s.x, min(cols, s.x+first))
	case 'J':
		from, to := s.y, rows
		if n[0] == 1 {
			from, to = 0, s.y
		} else if n[0] >= 2 {
			from = 0
		} else {
			s.erase(s.y, s.x, cols)
			from++
		}
		for y := from; y < to; y++ {
			s.erase(y, 0, cols)
		}
	case 'm', 'h', 'l', 'r', 'u', 'q', 'p', 'c', 'n', 't':
	default:
		s.strays = append(s.strays, params+string(final))
	}
}

func (s *screen) erase(y, from, to int) {
	for x := from; x < to; x++ {
		s.cells[y][x] = ' '
	}
}
