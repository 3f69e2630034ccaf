package emperor

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func newOutput(t *testing.T, log io.Writer) *output {
	t.Helper()
	o, err := openOutput("blog", filepath.Join(t.TempDir(), "fifo"), log)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// close ends the output. Nobody writes any more.
func (o *output) close() error {
	err := o.shut()
	o.finish()
	return err
}

func TestOutputLines(t *testing.T) {
	long := strings.Repeat("x", outputLine)
	for name, tc := range map[string]struct {
		writes []string
		want   string
	}{
		"lines":         {[]string{"a\nb\n"}, "blog | a\nblog | b\n"},
		"in pieces":     {[]string{"a", "b", "\nc\n"}, "blog | ab\nblog | c\n"},
		"empty line":    {[]string{"\n"}, "blog | \n"},
		"no end":        {[]string{"last words"}, "blog | last words\n"},
		"carriage":      {[]string{"a\r\n"}, "blog | a\n"},
		"long":          {[]string{long + "y\n"}, "blog | " + long + "\nblog | y\n"},
		"escape":        {[]string{"\x1b[2J\x07\n"}, `blog | \x1b[2J\x07` + "\n"},
		"C1":            {[]string{"\u009b2J\x9b\n"}, `blog | \xc2\x9b2J\x9b` + "\n"},
		"forged line":   {[]string{"a\rshop | b\n"}, `blog | a\x0dshop | b` + "\n"},
		"tab and UTF-8": {[]string{"a\tß€\n"}, "blog | a\tß€\n"},
		"NUL":           {[]string{"a\x00b\n"}, `blog | a\x00b` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.NoLeaks(t)
			log := &lines{}
			o := newOutput(t, log)
			w, err := o.writer(-1)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tc.writes {
				if _, err := w.WriteString(s); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if err := o.close(); err != nil {
				t.Fatal(err)
			}
			if got := log.String(); got != tc.want {
				t.Errorf("got %.300q, want %.300q", got, tc.want)
			}
			if _, err := os.Lstat(o.path); err == nil {
				t.Error("the pipe is left")
			}
		})
	}
}

// direct is an output whose log takes all at once, without a FIFO.
func direct(name string, log *lines) *output {
	return &output{name: name, log: log, done: make(chan struct{}), ended: make(chan struct{})}
}

func TestOutputOfAnOddName(t *testing.T) {
	log := &lines{}
	direct("a\nshop | b", log).take([]byte("x\n"))
	if got := log.String(); got != `a\x0ashop | b | x`+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestOutputTail(t *testing.T) {
	o := direct("blog", &lines{})
	b, more := o.tail(0)
	if b.total != 0 {
		t.Fatalf("%+v", b)
	}
	o.take([]byte("one\n"))
	select {
	case <-more:
	default:
		t.Error("nobody was told")
	}
	if b, _ = o.tail(b.total); string(b.kept) != "one\n" || b.total != 4 {
		t.Errorf("%q, %d", b.kept, b.total)
	}
	if b, _ = o.tail(b.total); len(b.kept) != 0 || b.total != 4 {
		t.Errorf("%q, %d", b.kept, b.total)
	}
	for range 200 {
		o.take([]byte(strings.Repeat("y", 4096)))
	}
	if b, _ = o.tail(0); len(b.kept) < outputKept || len(b.kept) > 2*outputKept {
		t.Errorf("%d bytes are kept", len(b.kept))
	}
	if n := cap(o.history.store.(*memory).b); n > 4*outputKept {
		t.Errorf("%d bytes are held", n)
	}
}

// The app holds its own end for reading too: an emperor that is gone costs it
// nothing, and the next one reads on.
func TestOutputSurvivesItsEmperor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	o, err := openOutput("blog", path, &lines{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// The end of a killed emperor: descriptors close, the pipe stays.
	if err := o.fifo.Close(); err != nil {
		t.Fatal(err)
	}
	<-o.done
	if _, err := w.WriteString("while nobody read\n"); err != nil {
		t.Fatalf("the app noticed: %v", err)
	}
	log := &lines{}
	if o, err = openOutput("blog", path, log); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 5*time.Second, "the line", func() bool { return log.String() == "blog | while nobody read\n" })
	if err := o.close(); err != nil {
		t.Error(err)
	}
}

func TestOutputWriterBlocks(t *testing.T) {
	o := newOutput(t, &lines{})
	w, err := o.writer(-1)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v: an app would lose lines", flags, err)
	}
	w.Close()
	if err := o.close(); err != nil {
		t.Error(err)
	}
}

func TestSafeName(t *testing.T) {
	for name, want := range map[string]string{
		"blog": "blog", "a.b": "a.b", ".": "%2e", "..": "%2e.", ".hidden": "%2ehidden", "a/b": "a%2fb", "a b\n": "a%20b%0a", "100%": "100%25", "ß": "%c3%9f",
	} {
		if got := safeName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	one, two := safeName(strings.Repeat("x", 250)), safeName(strings.Repeat("x", 249)+"y")
	if one == two || len(one) > 200 || len(two) > 200 {
		t.Errorf("%q, %q", one, two)
	}
}
