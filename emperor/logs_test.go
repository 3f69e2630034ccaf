package emperor

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// logPlan is a start with a log, and the file.
func logPlan(t *testing.T, path string, l vassal.Logging) (*logfile.File, *vassal.Plan) {
	t.Helper()
	p := &vassal.Plan{LogTo: path, Logging: l, LogUID: -1, UID: -1, GID: -1}
	f, err := p.OpenLog(false)
	if err != nil {
		t.Fatal(err)
	}
	return f, p
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func loggingEmperor() *Emperor {
	return &Emperor{Log: slog.New(slog.DiscardHandler), Config: &Config{}}
}

func TestOutputToAFile(t *testing.T) {
	nettest.NoLeaks(t)
	log, e := &lines{}, loggingEmperor()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	o := newOutput(t, log)
	f, p := logPlan(t, one, vassal.Logging{})
	o.setLogs(e, f, p)
	o.take([]byte("raw \x1b\n"))
	nettest.Eventually(t, 20*time.Second, "it is in the file", func() bool { return textOf(t, one) == "raw \x1b\n" })
	f, p = logPlan(t, two, vassal.Logging{})
	o.setLogs(e, f, p)
	o.take([]byte("in two\n"))
	if s := o.status(); s.File != two || s.Bytes != 13 || s.Lost.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	o.setLogs(e, nil, &vassal.Plan{})
	o.take([]byte("after\n"))
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, one) + textOf(t, two) + log.String(); got != "raw \x1b\nin two\nblog | after\n" {
		t.Errorf("got %q", got)
	}
}

// Not a byte is lost, whatever is done to the log meanwhile.
func TestNoLineIsLostOnRotation(t *testing.T) {
	nettest.NoLeaks(t)
	e := loggingEmperor()
	path := filepath.Join(t.TempDir(), "log")
	all := 0
	l := vassal.Logging{MaxSize: logfile.MinSize, Backups: &all}
	o := newOutput(t, &lines{})
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 20_000 {
		if i%2000 == 0 {
			f, p := logPlan(t, path, l) // a start
			o.setLogs(e, f, p)
		}
		if i%3000 == 0 {
			o.logs.opened.Rotate()
		}
		if i%5000 == 1 {
			o.reopen()
		}
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i%100))
		want.WriteString(line)
		if _, err := io.WriteString(w, line); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 { // no faster than any disk: this is about rotation
			nettest.Eventually(t, 20*time.Second, "it is written", func() bool { return sizeOf(t, path) == int64(want.Len()) })
		}
	}
	w.Close()
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	names := rotated(t, path)
	if len(names) < 10 {
		t.Errorf("only %q", names)
	}
	var got bytes.Buffer
	for _, name := range append(names, path) {
		got.WriteString(textOf(t, name))
	}
	if s := o.status(); s.Lost.Bytes != 0 || got.String() != want.String() {
		t.Errorf("%d bytes of %d are there, %d are counted as lost", got.Len(), want.Len(), s.Lost.Bytes)
	}
}

// rotated are a log's backups, the oldest first.
func rotated(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	key := func(name string) (second, n int) {
		if k, err := fmt.Sscanf(strings.TrimPrefix(name, path+"."), "%d.%d", &second, &n); k == 0 {
			t.Fatalf("%s: %v", name, err)
		}
		return second, n
	}
	slices.SortFunc(names, func(a, b string) int {
		s, n := key(a)
		s2, n2 := key(b)
		return cmp.Or(cmp.Compare(s, s2), cmp.Compare(n, n2))
	})
	return names
}

// sizeOf is how many bytes a log and its backups have.
func sizeOf(t *testing.T, path string) (sum int64) {
	t.Helper()
	for _, name := range append(rotated(t, path), path) {
		if st, err := os.Stat(name); err == nil { // else it was renamed meanwhile
			sum += st.Size()
		}
	}
	return sum
}

// A log that blocks never makes the vassal wait, and what is lost is
// counted to the byte and the line.
func TestAStuckLogDoesNotStopTheVassal(t *testing.T) {
	nettest.NoLeaks(t)
	stuck := &gate{open: make(chan struct{})}
	o, err := openOutput("blog", filepath.Join(t.TempDir(), "fifo"), stuck)
	if err != nil {
		t.Fatal(err)
	}
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	const line = "0123456789abcde\n"
	const count = 100_000
	piece := strings.Repeat(line, 100)
	for range count / 100 { // nobody reads the log: this must come to its end
		if _, err := io.WriteString(w, piece); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	nettest.Eventually(t, 20*time.Second, "all is taken", func() bool { return o.status().Bytes == uint64(count*len(line)) })
	lost := o.status().Lost
	close(stuck.open)
	nettest.Eventually(t, 20*time.Second, "the loss is told", func() bool { return toldLost(stuck.String()) == lost })
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	written := strings.Count(stuck.String(), "blog | 0123456789abcde\n")
	if uint64(written)+lost.Lines != count {
		t.Errorf("%d lines are written and %d counted, of %d", written, lost.Lines, count)
	}
}

// toldLost adds up what a log tells of losses: in one place, or in two where the
// writer began late.
func toldLost(log string) (sum logfile.Lost) {
	for line := range strings.Lines(log) {
		var one logfile.Lost
		if n, _ := fmt.Sscanf(line, "fiefdom: %d bytes with %d ends of lines of blog were lost here", &one.Bytes, &one.Lines); n == 2 {
			sum.Bytes, sum.Lines = sum.Bytes+one.Bytes, sum.Lines+one.Lines
		}
	}
	return sum
}

// gate is a log that takes nothing before it is open.
type gate struct {
	lines
	open chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.lines.Write(b)
}

// The operator's screen and log are safe from whatever a vassal writes, and so
// is the memory: a line without an end, of 1 GB where all is tested at its full
// numbers, is cut (T46).
func TestSoakHostileOutput(t *testing.T) {
	log := &judge{t: t}
	o := newOutput(t, log)
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), 1<<16)
	times := 1 << 8
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		times = 1 << 14
	}
	hostile := "\x1b]0;owned\x07\nfiefdom: all is well\nshop | paid\rroot | x\n\x00nul\x80\xff\n\u009b2J\n2026-11-21 level=ERROR msg=\"forged\"\n"
	if _, err := io.WriteString(w, hostile); err != nil {
		t.Fatal(err)
	}
	for range times {
		if _, err := w.Write(long); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	nettest.Eventually(t, 60*time.Second, "all is taken", func() bool { return o.status().Bytes == uint64(len(hostile)+times*len(long)) })
	if n := cap(o.partial) + cap(o.history.store.(*memory).b); n > 2<<20 {
		t.Errorf("%d bytes are held", n)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	want := `blog | \x1b]0;owned\x07` + "\nblog | fiefdom: all is well\n" + `blog | shop | paid\x0droot | x` + "\n" + `blog | \x00nul\x80\xff` + "\n" + `blog | \xc2\x9b2J` + "\n"
	if !strings.HasPrefix(string(log.first), want) {
		t.Errorf("it begins with %.300q", log.first)
	}
	if log.partial != "" || log.lines < times/4 {
		t.Errorf("%d lines came, and %.100q", log.lines, log.partial)
	}
}

// judge is a log that looks at each line, and keeps the first ones. One
// goroutine writes; what it has is for after that.
type judge struct {
	t       *testing.T
	first   []byte
	partial string
	lines   int
}

func (j *judge) Write(b []byte) (int, error) {
	if len(j.first) < 4096 {
		j.first = append(j.first, b...)
	}
	for line := range strings.Lines(j.partial + string(b)) {
		text, whole := strings.CutSuffix(line, "\n")
		if j.partial = ""; !whole {
			j.partial = line
			break
		}
		j.lines++
		switch {
		case strings.HasPrefix(text, "fiefdom: "):
			if !strings.Contains(text, " of blog were lost here: ") {
				j.t.Errorf("forged: %q", text)
			}
		case !strings.HasPrefix(text, "blog | ") || len(text) > outputLine+len("blog | "):
			j.t.Errorf("forged or long: %.100q", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' }) {
			j.t.Errorf("control bytes: %.100q", text)
		}
	}
	return len(b), nil
}

// What is touched is done, once.
func TestWatchTouches(t *testing.T) {
	nettest.NoLeaks(t)
	dir := t.TempDir()
	l := &vassal.Logging{TouchReopen: []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}, TouchRotate: []string{filepath.Join(dir, "c")}}
	tick, stop, told := make(chan time.Time), make(chan struct{}), make(chan bool, 10)
	var watching sync.WaitGroup
	watching.Go(func() {
		WatchTouches(l, func(do func() error) error { return do() }, tick, stop, func(rotate bool) { told <- rotate })
	})
	look := func() {
		tick <- time.Time{}
		tick <- time.Time{} // the one before is over
	}
	look()
	for _, tc := range []struct {
		file   string
		rotate bool
	}{{"a", false}, {"b", false}, {"c", true}} {
		path := filepath.Join(dir, tc.file)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		look()
		if got := <-told; got != tc.rotate || len(told) > 0 {
			t.Errorf("%s made: %v, and %d more", tc.file, got, len(told))
		}
		later := unix.Timespec{Sec: 1_900_000_000}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{later, later}, 0); err != nil {
			t.Fatal(err)
		}
		look()
		if got := <-told; got != tc.rotate || len(told) > 0 {
			t.Errorf("%s touched: %v, and %d more", tc.file, got, len(told))
		}
	}
	close(stop)
	watching.Wait()
}
