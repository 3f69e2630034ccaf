package emperor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// The init stage's exec takes the thread's credentials along, as in cmd.
func init() {
	if len(os.Args) > 1 && os.Args[1] == vassal.InitStage {
		runtime.LockOSThread()
	}
}

// TestMain plays the processes that the package starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case vassal.InitStage:
			os.Exit(vassal.Init())
		case ExpanderProcess:
			if err := Expander(os.Args[2:], os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			if os.Getenv(tellPeak) != "" {
				status, _ := os.ReadFile("/proc/self/status")
				fmt.Fprintf(os.Stderr, "%s", status)
			}
			os.Exit(0)
		case HookProcess:
			if err := HookMain(os.Stdin, os.Stdout); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	_ = vassal.ProtectProgram() // its descriptor stays open; leak checks count what is new
	os.Exit(m.Run())
}

// sharedDir is a folder that every uid may pass through.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fiefdom-emperor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lines collects what is written, whole lines at a time.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// realm is a running emperor of a test, its vassals without devices.
type realm struct {
	*Emperor
	*Client
	dir    string // of the inis
	output *lines
	log    *lines
	end    func()
}

func newRealm(t *testing.T, change func(*Emperor)) *realm {
	t.Helper()
	nettest.Root(t)
	dir := sharedDir(t)
	r := &realm{dir: filepath.Join(dir, "vassals"), output: &lines{}, log: &lines{}}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Config{
		File: "emperor.ini", Instance: "test", Runtime: filepath.Join(dir, "run"), State: filepath.Join(dir, "state"),
		Monitors: []Monitor{{Dir: r.dir}}, Freq: time.Hour,
	}
	instance, err := Lock(c)
	if err != nil {
		t.Fatal(err)
	}
	leases, err := instance.OpenLeases()
	if err != nil {
		t.Fatal(err)
	}
	r.Emperor = &Emperor{
		Config: c, Instance: instance, Leases: leases, Output: r.output,
		Log: slog.New(slog.NewTextHandler(io.MultiWriter(r.log, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(r.Emperor)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	serving, silence := context.WithCancel(t.Context())
	wg.Go(func() {
		if err := r.ServeAPI(serving); err != nil {
			t.Error(err)
		}
	})
	r.Client = NewClient(c.Runtime)
	r.end = sync.OnceFunc(func() {
		cancel()
		<-r.stopped
		silence()
		wg.Wait()
		if err := instance.Unlock(); err != nil {
			t.Error(err)
		}
		nettest.Eventually(t, 10*time.Second, "no process of a vassal to be left", func() bool {
			left, err := filepath.Glob("/proc/[0-9]*/cwd")
			return err == nil && !slices.ContainsFunc(left, func(link string) bool {
				where, err := os.Readlink(link)
				return err == nil && strings.HasPrefix(where, r.dir)
			})
		})
	})
	t.Cleanup(r.end)
	nettest.Eventually(t, 5*time.Second, "the API's socket", func() bool {
		_, err := r.List(t.Context())
		return err == nil
	})
	return r
}

func (r *realm) write(t *testing.T, name, text string) {
	t.Helper()
	// Whole at once: half an ini would be a bad one for a moment.
	tmp := filepath.Join(filepath.Dir(r.dir), name+".new")
	write(t, tmp, text)
	if err := os.Rename(tmp, filepath.Join(r.dir, name+".ini")); err != nil {
		t.Fatal(err)
	}
}

// await waits until a vassal is as it should be.
func (r *realm) await(t *testing.T, name, what string, holds func(Status) bool) Status {
	t.Helper()
	var s Status
	defer func() {
		if t.Failed() {
			t.Logf("%s is %+v", name, s)
		}
	}()
	nettest.Eventually(t, 20*time.Second, name+": "+what, func() bool {
		var err error
		s, err = r.Get(t.Context(), name)
		return err == nil && holds(s)
	})
	return s
}

func (r *realm) awaitState(t *testing.T, name string, state State) Status {
	t.Helper()
	return r.await(t, name, string(state), func(s Status) bool { return s.State == state })
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// testEmperor is one that never runs: for what needs no loop.
func testEmperor(t *testing.T, networks ...Network) *Emperor {
	t.Helper()
	leases, err := LoadLeases(filepath.Join(t.TempDir(), "leases.json"))
	if err != nil {
		t.Fatal(err)
	}
	return &Emperor{
		Config: &Config{}, Instance: &Instance{Runtime: t.TempDir()}, Log: slog.New(slog.DiscardHandler), Networks: networks, Leases: leases,
		expand:  func(owner, []iniFile) []expansion { return nil },
		vassals: map[string]*member{}, expanding: map[owner]bool{}, queued: map[owner][]iniFile{},
	}
}

// vassalOf parses an ini's text.
func vassalOf(t *testing.T, name, text string) (*vassal.Config, ini.Errors) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".ini")
	write(t, path, "[uwsgi]\ncommand = /bin/true\n"+text+"\n")
	return ReadVassal(name, path, nil)
}

func goodVassal(t *testing.T, name, text string) *vassal.Config {
	t.Helper()
	c, errs := vassalOf(t, name, text)
	if errs.Failed() {
		t.Fatal(errs)
	}
	return c
}

// scan looks at monitors as an emperor does that has nothing else in its ini.
func scan(monitors []Monitor) *inis { return (&Config{Monitors: monitors}).scan(nil) }
