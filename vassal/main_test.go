package vassal

import (
	"context"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/logfile"
	"fiefdom/internal/nettest"
)

// The init stage's exec takes the thread's credentials along, as in cmd.
func init() {
	if len(os.Args) > 1 && os.Args[1] == InitStage {
		runtime.LockOSThread()
	}
}

// TestMain plays the init stage when the package starts itself as one, and the
// one who acts for the judge.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == InitStage {
		os.Exit(Init())
	}
	if action := os.Getenv(judgedAction); action != "" {
		os.Exit(actForJudge(action))
	}
	_ = ProtectProgram() // open from then on; leak checks count what is new
	os.Exit(m.Run())
}

// plan is one that changes nothing, with an app of /bin/sh.
func planOf(script string) Plan {
	return Plan{Name: "test", Args: []string{"/bin/sh", "-c", script}, UID: -1, GID: -1, Umask: -1, LogUID: -1}
}

// newCgroup makes a cgroup of the test's own.
func newCgroup(t testing.TB) Cgroup {
	t.Helper()
	nettest.Root(t)
	nettest.Unified(t)
	own, err := OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dir := nettest.NewCgroup(t, string(own))
	t.Cleanup(func() {
		if err := Cgroup(dir).Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return Cgroup(dir)
}

var sleeper = nettest.Sleeper

// newJail makes a jail and closes it at the end of the test.
func newJail(t *testing.T, links ...Link) *Jail {
	t.Helper()
	nettest.Root(t)
	j, err := NewJail("test", true, links)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// collect gives what is started the pipe that collects its output.
func (l *Launch) collect(t *testing.T) (r *os.File, started func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	l.Output = w
	return r, func() { w.Close() }
}

// startWith starts something beside, or in, a generation; it ends with the
// test.
func startWith(t *testing.T, l Launch, start func(context.Context, Launch) (*Generation, error)) (*started, error) {
	t.Helper()
	r, done := l.collect(t)
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	g, err := start(ctx, l)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { g.Kill(); g.Wait() })
	return &started{g, r}, nil
}

// started is a running app with what it writes.
type started struct {
	*Generation
	output *os.File
}

// tryStart starts an app whose output goes to a pipe.
func tryStart(t *testing.T, j *Jail, l Launch) (*started, error) {
	t.Helper()
	r, done := l.collect(t)
	defer done()
	if l.Log == nil {
		l.Log = func(f *logfile.File) { f.Close() }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	g, err := j.Start(ctx, l)
	if err != nil {
		return &started{output: r}, err
	}
	t.Cleanup(func() {
		g.Kill()
		if exit := g.Wait(); exit.Err != nil {
			t.Error(exit.Err)
		}
	})
	return &started{g, r}, nil
}

func startApp(t *testing.T, j *Jail, l Launch) *started {
	t.Helper()
	s, err := tryStart(t, j, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// end waits for the app's end and returns everything it wrote.
func (s *started) end(t *testing.T) (string, Exit) {
	t.Helper()
	if err := s.output.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(s.output)
	if err != nil {
		t.Fatalf("output: %v after %q", err, b)
	}
	exit := s.Wait()
	if exit.Err != nil {
		t.Fatal(exit.Err)
	}
	return string(b), exit
}

// line reads one line of the app's output: it has come that far.
func (s *started) line(t *testing.T) string {
	t.Helper()
	if err := s.output.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for b := make([]byte, 1); ; {
		if _, err := s.output.Read(b); err != nil {
			t.Fatalf("output: %v after %q", err, text)
		}
		if b[0] == '\n' {
			return string(text)
		}
		text = append(text, b[0])
	}
}

// status reads fields of /proc/PID/status out of a text.
func status(text, field string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "no field " + field
}
