package emperor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

var someTime = time.UnixMilli(1_800_000_000_000)

// text is all that a history shows, with the times since someTime.
func (h *history) text() string {
	var s strings.Builder
	lines, _ := h.since(0).lines(false)
	for _, l := range lines {
		fmt.Fprintf(&s, "%d %s\n", l.Time.Sub(someTime).Milliseconds(), l.Text)
	}
	return s.String()
}

// fill adds lines of sizes up to most, one a millisecond.
func (h *history) fill(seed uint64, lines, most int) {
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range lines {
		h.add(fmt.Appendf(nil, "%d %s\n", i, strings.Repeat("x", r.IntN(most))), someTime.Add(time.Duration(i)*time.Millisecond))
	}
}

// The next emperor shows what the one before did, and goes on at its positions.
func TestHistoryOutlivesItsEmperor(t *testing.T) {
	nettest.NoLeaks(t)
	for name, lines := range map[string]int{"nothing": 0, "a line": 1, "more than fits": 3000} {
		t.Run(name, func(t *testing.T) {
			h, err := newHistory(someTime)
			if err != nil {
				t.Fatal(err)
			}
			h.fill(1, lines, 1000)
			next, err := restoreHistory(h.file)
			if err != nil {
				t.Fatal(err)
			}
			if lines > 0 && !next.began.Equal(h.began) || next.total != h.total || next.text() != h.text() {
				t.Errorf("it began %v and has %d bytes, not %v and %d", next.began, next.total, h.began, h.total)
			}
			before := next.text()
			at := next.total
			next.add([]byte("after\n"), someTime.Add(-time.Second)) // and a clock that was put back
			if got := string(next.since(at).kept); got != "after\n" {
				t.Errorf("then comes %q", got)
			}
			if got := next.text(); !strings.HasSuffix(before+"-1000 after\n", got) || lines < 100 && got != before+"-1000 after\n" {
				t.Errorf("now there is %.200q", got)
			}
			whole := next.text()
			if next.part(); next.text() != whole || next.file != nil {
				t.Error("it is another one without its file")
			}
		})
	}
}

// cutStore fails after some bytes were written, as for an emperor who is killed.
// A header is written whole.
type cutStore struct {
	memory
	left int
}

func (c *cutStore) WriteAt(b []byte, at int64) (int, error) {
	if c.left < len(b) {
		if at > 0 {
			_, _ = c.memory.WriteAt(b[:c.left], at)
		}
		c.left = 0
		return 0, errors.New("killed")
	}
	c.left -= len(b)
	return c.memory.WriteAt(b, at)
}

// Wherever an emperor is killed, the next one has all lines but at most the one
// that was being written.
func TestHistoryOfAKilledEmperor(t *testing.T) {
	const lines, most = 1000, 3000 // more than twice what the ring has
	var all history
	all.store = &cutStore{left: 1 << 40}
	all.fill(7, lines, most)
	used := 1<<40 - all.store.(*cutStore).left
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		c := &cutStore{left: historyHead + recordMost + r.IntN(used)}
		h := history{store: c}
		done := 0
		rr := rand.New(rand.NewPCG(7, 0))
		for ; c.left > 0; done++ {
			h.add(fmt.Appendf(nil, "%d %s\n", done, strings.Repeat("x", rr.IntN(most))), someTime.Add(time.Duration(done)*time.Millisecond))
		}
		next, err := readHistory(&c.memory)
		if err != nil {
			t.Fatalf("after %d lines: %v", done, err)
		}
		got, _ := next.since(0).lines(true)
		if len(got) == 0 {
			t.Fatalf("after %d lines there is none", done)
		}
		number := func(l LogLine) (n int) { _, _ = fmt.Sscan(l.Text, &n); return n }
		if last := number(got[len(got)-1]); last < done-2 {
			t.Fatalf("after %d lines the last is %d", done, last)
		}
		for i, l := range got {
			if n := number(l); n != number(got[0])+i || !l.Time.Equal(someTime.Add(time.Duration(n)*time.Millisecond)) {
				t.Fatalf("line %d after %d is %.20q of %v", i, number(got[0]), l.Text, l.Time)
			}
		}
	}
}

// What is cut off or garbage is refused, or right in itself, and can be gone on with.
func FuzzHistory(f *testing.F) {
	for _, lines := range []int{1, 3, 100} {
		h := history{began: someTime}
		h.fill(3, lines, 50)
		b := h.store.(*memory).b
		f.Add(b)
		f.Add(b[:len(b)-5])
		f.Add(b[:historyHead-1])
		f.Add(append(bytes.Clone(b[:min(len(b), 100)]), make([]byte, 20)...))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > historySize {
			return
		}
		sealed := bytes.Clone(b)
		if len(sealed) >= historyHead { // else no garbage would get beyond the sum
			seal((*[historyHead]byte)(sealed))
		}
		for _, b := range [][]byte{b, sealed} {
			h, err := readHistory(&memory{bytes.Clone(b)})
			if err != nil {
				continue
			}
			kept := h.since(0)
			if kept.first() < 0 || kept.total != h.total {
				t.Fatalf("%d bytes up to %d of %d", len(kept.kept), kept.total, h.total)
			}
			lines, _ := kept.lines(false)
			for _, l := range lines {
				if _, err := l.Time.MarshalJSON(); err != nil {
					t.Fatal(err)
				}
			}
			h.add([]byte("\nlast\n"), someTime)
			if got, _ := h.since(0).lines(true); len(got) == 0 || got[len(got)-1].Text != "last" {
				t.Fatalf("the last line of %d is not the last one written", len(got))
			}
		}
	})
}

// Each cut and each changed byte of a small history is refused or harmless.
func TestHistoryThatIsDamaged(t *testing.T) {
	h := history{began: someTime}
	h.fill(3, 3, 50)
	whole, text := h.store.(*memory).b, h.text()
	for n := 1; n < len(whole); n++ {
		if _, err := readHistory(&memory{whole[:n]}); err == nil {
			t.Errorf("its first %d bytes are taken", n)
		}
	}
	for i := range historyHead - 12 {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if _, err := readHistory(&memory{b}); err == nil {
			t.Errorf("byte %d of the header is changed, and it is taken", i)
		}
	}
	beyond := append(bytes.Clone(whole), "what was being written"...)
	next, err := readHistory(&memory{beyond})
	if err != nil || next.text() != text {
		t.Errorf("%v, %q, want %q", err, next.text(), text)
	}
}

// deadStore is one that cannot be written any more.
type deadStore struct{ io.ReaderAt }

func (deadStore) WriteAt([]byte, int64) (int, error) { return 0, errors.New("no memory") }

// What cannot be written is missing, and nothing else.
func TestHistoryWithoutMemory(t *testing.T) {
	h := history{began: someTime}
	h.fill(3, 3, 50)
	text, own := h.text(), h.store
	h.store = deadStore{own}
	h.fill(4, 3, 50)
	h.store = own
	h.add([]byte("again\n"), someTime)
	if got := h.text(); got != text+"0 again\n" {
		t.Errorf("%q, want %q and again", got, text)
	}
}

// Whoever follows goes on where he was, if it is still the same history.
func TestFollowersGoOn(t *testing.T) {
	o := direct("blog", &lines{})
	o.history.began = someTime
	o.take([]byte("one\ntwo\nthree\n"))
	kept, _ := o.tail(0)
	all, _ := kept.lines(true)
	next := kept.next(all[1])
	for name, tc := range map[string]struct {
		next string
		want string
	}{
		"the same":      {next, "three\n"},
		"nothing yet":   {"", "one\ntwo\nthree\n"},
		"another":       {"a" + next, "one\ntwo\nthree\n"},
		"beyond":        {next + "0", "one\ntwo\nthree\n"},
		"before":        {strings.Replace(next, ".", ".-", 1), "one\ntwo\nthree\n"},
		"not even that": {"x", "one\ntwo\nthree\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := o.tail(o.position(tc.next)); string(got.kept) != tc.want {
				t.Errorf("%q gives %q, want %q", tc.next, got.kept, tc.want)
			}
		})
	}
}
