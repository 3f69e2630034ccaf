package emperor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func TestParseMonitor(t *testing.T) {
	for value, want := range map[string]Monitor{
		"/etc/vassals/":           {Dir: "/etc/vassals"},
		"vassals":                 {Dir: "vassals"},
		"dir:///etc/vassals":      {Dir: "/etc/vassals"},
		"glob:///etc/*/a.ini":     {Pattern: "/etc/*/a.ini"},
		"/etc/vassals/*.ini":      {Pattern: "/etc/vassals/*.ini"},
		"dir:///etc/odd [name]/x": {Dir: "/etc/odd [name]/x"},
		"/etc/apps.ini:blog":      {Dir: "/etc/apps.ini", Section: "blog"},
		"/etc/*/a.ini:blog":       {Pattern: "/etc/*/a.ini", Section: "blog"},
		"glob:///etc/a*.ini:b":    {Pattern: "/etc/a*.ini", Section: "b"},
		"/etc/a.ini:b/vassals":    {Dir: "/etc/a.ini:b/vassals"},
		"/etc/a.ini:":             {Dir: "/etc/a.ini:"},
	} {
		if got, err := parseMonitor(value); err != nil || got != want {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "zmq://x", "glob://[", "a["} {
		if got, err := parseMonitor(value); err == nil {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

func TestNamesOfAPatternsFolders(t *testing.T) {
	for name, tt := range map[string]struct{ pattern, path, want string }{
		"own names":             {"/srv/*/conf/app-*.ini", "/srv/blog/conf/app-a.ini", ""},
		"a pattern of files":    {"/srv/*.ini", "/srv/blog.ini", ""},
		"no pattern":            {"", "/srv/blog.ini", ""},
		"one folder":            {"/srv/*/conf/app.ini", "/srv/blog.example/conf/app.ini", "blog.example"},
		"two folders":           {"/srv/*/[ab]/app.ini", "/srv/blog/a/app.ini", "blog-a"},
		"a name of other bytes": {"/srv/*/app.ini", "/srv/a\nb/app.ini", ""},
	} {
		if got := (Monitor{Pattern: tt.pattern}).folders(tt.path); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestScanSees(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "blog.ini")
	write(t, path, "one")
	scanned := func() iniFile { return scan([]Monitor{{Dir: dir}}).found["blog"] }
	before := scanned()
	if before.path != path || before.name != "blog" {
		t.Fatalf("%+v", before)
	}
	if again := scanned(); again != before {
		t.Errorf("changed by itself: %+v, %+v", before, again)
	}
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"touched, a nanosecond", func() error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, st.ModTime().Add(1))
		}},
		{"grown at the same time", func() error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			write(t, path, "one and more")
			return os.Chtimes(path, time.Time{}, st.ModTime())
		}},
		{"replaced, same size and time", func() error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			write(t, path+".new", "one or more.")
			return errors.Join(os.Chtimes(path+".new", time.Time{}, st.ModTime()), os.Rename(path+".new", path))
		}},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		after := scanned()
		if after == before {
			t.Errorf("%s: not seen", change.what)
		}
		before = after
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s := scan([]Monitor{{Dir: dir}}); len(s.found) != 0 || len(s.errs) != 0 || !s.missing(before) {
		t.Errorf("removed: %+v", s)
	}
}

func TestScanSeesANewOwner(t *testing.T) {
	nettest.Root(t)
	path := filepath.Join(t.TempDir(), "blog.ini")
	write(t, path, "")
	before := scan([]Monitor{{Dir: filepath.Dir(path)}}).found["blog"]
	if err := os.Chown(path, 61200, 61200); err != nil {
		t.Fatal(err)
	}
	if after := scan([]Monitor{{Dir: filepath.Dir(path)}}).found["blog"]; after == before || after.owner != (owner{61200, 61200}) {
		t.Errorf("%+v", after)
	}
}

func TestScanOrderAndProblems(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for _, path := range []string{one + "/b.ini", one + "/a.ini", one + "/not.conf", one + "/.ini", two + "/a.ini", two + "/c.ini"} {
		write(t, path, "")
	}
	if err := errors.Join(os.Mkdir(one+"/dir.ini", 0o755), os.Symlink("nowhere", one+"/dangling.ini"), os.Symlink(two+"/c.ini", one+"/linked.ini"), unix.Mkfifo(one+"/fifo.ini", 0o600)); err != nil {
		t.Fatal(err)
	}
	s := scan([]Monitor{{Dir: one}, {Pattern: two + "/*.ini"}, {Dir: one}})
	if want := []string{"a", "b", "linked", "c"}; !reflect.DeepEqual(s.order, want) {
		t.Errorf("order %q, want %q", s.order, want)
	}
	if s.found["a"].path != one+"/a.ini" || s.found["linked"].path != one+"/linked.ini" {
		t.Errorf("%+v", s.found)
	}
	all := errors.Join(s.errs...).Error()
	for _, want := range []string{"dir.ini is not a regular file", "fifo.ini is not a regular file", `the name "a" is taken by ` + one + "/a.ini"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q: %s", want, all)
		}
	}
	if strings.Contains(all, "dangling") {
		t.Errorf("a dangling link is a problem: %s", all)
	}
}

// A file system that is away stops nobody; a file that is gone does.
func TestScanUnsure(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, one+"/a.ini", "")
	write(t, two+"/b.ini", "")
	monitors := []Monitor{{Dir: one}, {Dir: two}}
	before := scan(monitors)
	if err := os.Rename(one, one+".away"); err != nil {
		t.Fatal(err)
	}
	s := scan(monitors)
	if s.missing(before.found["a"]) || s.missing(before.found["b"]) || len(s.errs) != 1 {
		t.Errorf("%+v", s)
	}
	if err := errors.Join(os.Mkdir(one, 0o755), os.Remove(two+"/b.ini")); err != nil {
		t.Fatal(err)
	}
	if s := scan(monitors); !s.missing(before.found["a"]) || !s.missing(before.found["b"]) {
		t.Errorf("%+v", s)
	}
	// A link in a circle cannot be looked at: what it led to may be there.
	if err := os.Symlink("b.ini", two+"/b.ini"); err != nil {
		t.Fatal(err)
	}
	if s := scan(monitors); s.missing(before.found["b"]) || errors.Is(errors.Join(s.errs...), fs.ErrNotExist) {
		t.Errorf("%+v", s)
	}
}

func TestWatch(t *testing.T) {
	nettest.NoLeaks(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Config{Monitors: []Monitor{{Dir: dir}, {Pattern: filepath.Join(dir, "*.ini")}, {Dir: filepath.Join(dir, "missing")}}}).watch(ctx, slog.New(slog.DiscardHandler), func() { changed <- struct{}{} })
	}()
	path := filepath.Join(dir, "a.ini")
	<-changed // the watch has begun
	write(t, path, "x")
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"renamed", func() error { return os.Rename(path, filepath.Join(dir, "b.ini")) }},
		{"removed", func() error { return os.Remove(filepath.Join(dir, "b.ini")) }},
	} {
		settle(changed)
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Errorf("no notice: %s", change.what)
		}
	}
	settle(changed)
	write(t, filepath.Join(dir, "other.conf"), "")
	write(t, filepath.Join(dir, "c.ini"), "")
	<-changed // of c.ini, the one for other.conf would have come before
	cancel()
	<-done
}

// settle waits until nothing has come for a while.
func settle(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-time.After(5 * debounce):
			return
		}
	}
}

// A burst of writes is one notice: the wait begins with the first.
func TestDebounce(t *testing.T) {
	dir := t.TempDir()
	changed := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Config{Monitors: []Monitor{{Dir: dir}}}).watch(ctx, slog.New(slog.DiscardHandler), func() { changed <- struct{}{} })
	}()
	<-changed // the watch has begun
	began := time.Now()
	for range 200 {
		write(t, filepath.Join(dir, "a.ini"), "y")
	}
	took := time.Since(began)
	<-changed
	settle(changed)
	if most := int(took/debounce) + 2; len(changed) > most {
		t.Errorf("%d notices of one burst of %v", len(changed)+1, took)
	}
	cancel()
	<-done
}

// TestBackoffTimer shows with the clock of the bubble that a vassal waits its
// delay out, and that an operator's word does not wait.
func TestBackoffTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := testEmperor(t)
		e.make()
		e.newMember(iniFile{name: "blog"})
		v := e.vassals["blog"]
		v.state, v.backoff.deaths = Running, 5
		e.happen(v, exited)
		if v.state != Backoff {
			t.Fatalf("%s", v.state)
		}
		began := time.Now()
		f := <-e.calls // the timer's
		if waited := time.Since(began); waited < time.Second || waited > 2*time.Second {
			t.Errorf("waited %v after six deaths", waited)
		}
		f() // no good ini here: the expander is asked, once
		if v.state != Stopped || len(e.queued)+len(e.expanding) != 1 {
			t.Errorf("%s, %v", v.state, e.queued)
		}
	})
}
