package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/internal/pidfd"
)

// TestMain plays the process that the package starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Process {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// open is an emperor at the vault of a path.
func open(t *testing.T, path string) (*Vault, map[string]Item) {
	t.Helper()
	v := &Vault{Path: path, Log: slog.New(slog.DiscardHandler), UID: 65520}
	items, err := v.Open()
	if err == nil {
		err = v.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.End)
	found := map[string]Item{}
	for _, i := range items {
		t.Cleanup(i.Files.Close)
		found[i.Key] = i
	}
	return v, found
}

func put(t *testing.T, v *Vault, key string, note any, hear string, files map[string]*os.File) {
	t.Helper()
	var f Files
	for name, file := range files {
		if err := f.Add(name, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Put(key, note, &f, hear); err != nil {
		t.Fatal(err)
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// What an emperor has put, the next one finds, again and again; what was
// dropped or replaced he does not.
func TestTheNextEmperorFindsWhatWasPut(t *testing.T) {
	t.Parallel()
	nettest.Root(t)
	path := filepath.Join(t.TempDir(), "vault.sock")
	v, found := open(t, path)
	if len(found) != 0 {
		t.Fatalf("a new vault has %v", found)
	}
	r, w := pipe(t)
	long := strings.Repeat("x", 3<<20)
	put(t, v, "old", 1, "", map[string]*os.File{"in": r})
	put(t, v, "old", 2, "", nil)
	put(t, v, "gone", 1, "", map[string]*os.File{"in": r})
	put(t, v, "pipe", long, "", map[string]*os.File{"in": r, "out": w})
	if err := v.Drop("gone"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		v.end(false) // as if killed
		v, found = open(t, path)
		if len(found) != 2 {
			t.Fatalf("found %d items, want 2", len(found))
		}
		var note string
		item := found["pipe"]
		if err := json.Unmarshal(item.Note, &note); err != nil || note != long {
			t.Errorf("a note of %d bytes (%v), want %d", len(note), err, len(long))
		}
		if string(found["old"].Note) != "2" || found["old"].Files.Take("in") != nil {
			t.Errorf("what was replaced is there: %s", found["old"].Note)
		}
		in, out := item.Files.Take("in"), item.Files.Take("out")
		if _, err := out.WriteString("hello"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := in.Read(b); err != nil || string(b) != "hello" {
			t.Errorf("read %q, %v", b, err)
		}
		in.Close()
		out.Close()
	}
}

// A vault that is killed is followed by another, which is filled again; one
// that is left empty ends.
func TestVaultsEnd(t *testing.T) {
	t.Parallel()
	nettest.Root(t)
	path := filepath.Join(t.TempDir(), "vault.sock")
	pids := make(chan int, 8)
	v := &Vault{Path: path, Log: slog.New(slog.DiscardHandler), Record: func(pid int) error { pids <- pid; return nil }}
	filled := make(chan struct{})
	v.Refill = func(context.Context) { put(t, v, "again", "filled", "", nil); close(filled) }
	if err := v.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { v.Run(ctx) })
	first := <-pids
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := <-pids
	<-filled
	cancel()
	wg.Wait()
	last, found := open(t, path)
	if string(found["again"].Note) != `"filled"` {
		t.Errorf("found %v", found)
	}
	last.End()
	for _, pid := range []int{first, second} {
		nettest.Eventually(t, 20*time.Second, fmt.Sprint(pid, " is gone"), func() bool { return unix.Kill(pid, 0) != nil })
	}

	empty, _ := open(t, filepath.Join(t.TempDir(), "vault.sock"))
	pidfd, err := unix.FcntlInt(uintptr(empty.pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	empty.end(false)
	nettest.Eventually(t, 20*time.Second, "an empty vault is gone", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		return n == 1
	})
}

// While nobody listens to a vassal, the vault does: he never waits, and what he
// has said is told until an emperor knows it.
func TestVaultHears(t *testing.T) {
	t.Parallel()
	nettest.Root(t)
	path := filepath.Join(t.TempDir(), "vault.sock")
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := fds[1]
	defer unix.Close(theirs)
	ours := os.NewFile(uintptr(fds[0]), "channel")
	v, _ := open(t, path)
	put(t, v, "app", nil, "channel", map[string]*os.File{"channel": ours})
	say := func(b byte) error {
		_, err := unix.SendmsgN(theirs, []byte{b}, nil, nil, 0)
		return err
	}
	if err := say(1); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	v.end(false)
	for range 5000 { // far more than a buffer takes
		nettest.Eventually(t, 20*time.Second, "the vassal's word is taken", func() bool { return say(26) == nil })
	}
	if err := say(17); err != nil {
		nettest.Eventually(t, 20*time.Second, "the vassal's word is taken", func() bool { return say(17) == nil })
	}
	nettest.Eventually(t, 20*time.Second, "all is heard", func() bool {
		n, err := unix.IoctlGetInt(theirs, unix.SIOCOUTQ)
		return err == nil && n == 0
	})
	v, found := open(t, path)
	if heard := found["app"].Heard; string(heard) != "\x01\x1a\x11" {
		t.Errorf("heard %v", heard)
	}
	v.end(false) // before he could do anything
	v, found = open(t, path)
	if heard := found["app"].Heard; string(heard) != "\x01\x1a\x11" {
		t.Errorf("the second emperor hears %v", heard)
	}
	channel := found["app"].Files.Take("channel")
	defer channel.Close()
	put(t, v, "app", nil, "channel", map[string]*os.File{"channel": channel})
	v.end(false)
	if _, found = open(t, path); len(found["app"].Heard) != 0 {
		t.Errorf("told once more: %v", found["app"].Heard)
	}
	if err := say(5); err != nil { // and from then on he listens himself
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := channel.Read(b); err != nil || n != 1 || b[0] != 5 {
		t.Errorf("read %v, %v", b[:n], err)
	}
}

// An emperor can ask whether all that he has put is there: not without a process,
// not while it is being filled, and not if something did not fit in.
func TestWhatIsNotInTheVault(t *testing.T) {
	t.Parallel()
	nettest.Root(t)
	v := &Vault{Path: filepath.Join(t.TempDir(), "vault.sock"), Log: slog.New(slog.DiscardHandler)}
	filling, fill := make(chan struct{}), make(chan struct{})
	v.Refill = func(context.Context) { close(filling); <-fill }
	v.Record = func(int) error { return errors.New("no space left") } // costs nothing but the record
	if err := v.Check(); err == nil {
		t.Error("without a process all is well")
	}
	if err := v.Start(); err != nil {
		t.Fatal(err)
	}
	v.Record = nil
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { v.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	whole := func() { // it answers
		t.Helper()
		nettest.Eventually(t, 20*time.Second, "all is there", func() bool { return v.Check() == nil })
	}
	whole()
	r, _ := pipe(t)
	put(t, v, "pipe", 1, "", map[string]*os.File{"in": r})
	whole()

	few := unix.Rlimit{Cur: 10, Max: 10}
	v.mu.Lock()
	pid, err := pidfd.PID(v.pidfd)
	v.mu.Unlock()
	if err == nil {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		put(t, v, fmt.Sprint("more", n), 1, "", map[string]*os.File{"in": r})
	}
	if err := v.Check(); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("with more than fits: %v", err)
	}
	for n := range 10 {
		if err := v.Drop(fmt.Sprint("more", n)); err != nil {
			t.Fatal(err)
		}
	}
	whole()

	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-filling
	if err := v.Check(); err == nil {
		t.Error("all is in a vault that is not filled yet")
	}
	close(fill)
	whole()
}

// What the emperor has from those who started him ends with him.
func TestVaultHoldsNothingOfStrangers(t *testing.T) {
	nettest.Root(t)
	r, w := pipe(t)
	inherited, err := unix.Dup(int(w.Fd())) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	v, _ := open(t, filepath.Join(t.TempDir(), "vault.sock"))
	put(t, v, "something", 1, "", nil) // so that it lives on
	if err := unix.Close(inherited); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
