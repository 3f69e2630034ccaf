package emperor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

const stays = "[uwsgi]\ncommand = /bin/sleep 1000\n"

func TestLifecycle(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", stays)
	first := r.awaitState(t, "blog", Running)
	if first.PID == 0 || first.Restarts != 0 || first.Error != "" || len(first.Command) != 2 {
		t.Errorf("%+v", first)
	}
	// Touched: a new generation.
	now := time.Now()
	if err := os.Chtimes(first.File, now, now); err != nil {
		t.Fatal(err)
	}
	second := r.await(t, "blog", "reloaded", func(s Status) bool { return s.State == Running && s.PID != first.PID })
	// Killed: back at once.
	if err := unix.Kill(second.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	third := r.await(t, "blog", "back", func(s Status) bool { return s.State == Running && s.PID != second.PID })
	if third.Restarts != 2 {
		t.Errorf("%d restarts", third.Restarts)
	}
	// Broken: the old one goes on and says so.
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sleep 1000\numask = 9\n")
	broken := r.await(t, "blog", "an error", func(s Status) bool { return s.Error != "" })
	if broken.State != Running || broken.PID != third.PID || !strings.Contains(broken.Error, "blog.ini:3: ") {
		t.Errorf("%+v", broken)
	}
	// Mended.
	r.write(t, "blog", stays)
	fourth := r.await(t, "blog", "mended", func(s Status) bool { return s.State == Running && s.PID != third.PID && s.Error == "" })
	if err := os.Remove(filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 10*time.Second, "it is gone", func() bool {
		_, err := r.Get(t.Context(), "blog")
		return errors.Is(err, ErrNotFound)
	})
	if err := unix.Kill(fourth.PID, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("its process: %v", err)
	}
}

func TestBadIniStopsNobody(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "good", stays)
	good := r.awaitState(t, "good", Running)
	r.write(t, "bad", "[uwsgi]\ncommand = 'a\n")
	if s := r.awaitState(t, "bad", Invalid); !strings.Contains(s.Error, "bad.ini:2: ") || s.PID != 0 {
		t.Errorf("%+v", s)
	}
	r.write(t, "bad", stays)
	r.awaitState(t, "bad", Running)
	if s, err := r.Get(t.Context(), "good"); err != nil || s.PID != good.PID {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFailingStartsBackOff(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncommand = /no/such/program\n")
	s := r.await(t, "blog", "backing off", func(s Status) bool { return s.State == Backoff })
	if !strings.Contains(s.Error, "/no/such/program") || s.PID != 0 {
		t.Errorf("%+v", s)
	}
	r.write(t, "blog", stays)
	r.awaitState(t, "blog", Running)
}

// An operator's words, each answered when it is done.
func TestWords(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", stays)
	first := r.awaitState(t, "blog", Running)
	for _, step := range []struct {
		word  string
		state State
		same  bool // the process of before
	}{
		{"start", Running, true},
		{"restart", Running, false},
		{"reload", Running, false},
		{"stop", Stopped, false},
		{"stop", Stopped, true},
		{"start", Running, false},
		{"stop", Stopped, false},
		{"restart", Running, false},
		{"stop", Stopped, false},
		{"reload", Running, false},
	} {
		s, err := r.Do(t.Context(), "blog", step.word)
		if err != nil || s.State != step.state || (s.PID == first.PID) != step.same || (s.PID == 0) != (step.state == Stopped) {
			t.Errorf("%s: %+v, %v; before pid %d", step.word, s, err, first.PID)
		}
		first = s
	}
}

func TestWordsForTheInvalid(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "bad", "[uwsgi]\n")
	r.awaitState(t, "bad", Invalid)
	for _, step := range []struct {
		word string
		want State
	}{{"start", Invalid}, {"restart", Invalid}, {"reload", Invalid}, {"stop", Stopped}, {"start", Invalid}, {"stop", Stopped}, {"restart", Invalid}} {
		if s, err := r.Do(t.Context(), "bad", step.word); err != nil || s.State != step.want {
			t.Errorf("%s: %+v, %v", step.word, s, err)
		}
	}
	if _, err := r.Do(t.Context(), "nobody", "start"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := r.Do(t.Context(), "bad", "explode"); err == nil {
		t.Error("an unknown word was taken")
	}
}

// start and restart of a vassal whose ini nobody has read yet.
func TestLaunchWithoutAnIni(t *testing.T) {
	for _, ev := range []event{start, restart} {
		e := testEmperor(t)
		e.expanding[owner{}] = true // so that it stays queued
		e.newMember(iniFile{name: "blog"})
		v := e.vassals["blog"]
		e.happen(v, ev)
		if v.state != Stopped || len(e.queued[owner{}]) != 1 {
			t.Errorf("%s: %s, %v", ev, v.state, e.queued)
		}
	}
}

func TestQueueKeepsOneOfAName(t *testing.T) {
	e := testEmperor(t)
	e.queue(iniFile{name: "a", id: fileID{ino: 1}})
	e.queue(iniFile{name: "b"})
	e.queue(iniFile{name: "a", id: fileID{ino: 2}})
	if q := e.queued[owner{}]; len(q) != 2 || q[0].id.ino != 2 {
		t.Errorf("%+v", q)
	}
}

func TestStopDuringStart(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/sleep 1000\nhook-as-root = exec:trap '' TERM; sleep 1000\n")
	r.awaitState(t, "blog", Starting)
	if s, err := r.Do(t.Context(), "blog", "stop"); err != nil || s.State != Stopped {
		t.Errorf("%+v, %v", s, err)
	}
	// Reload in the middle of a start: the newest ini runs in the end.
	if err := os.Remove(filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	r.write(t, "shop", "[uwsgi]\ncommand = /bin/sleep 1000\nhook-as-root = exec:sleep 1000\n")
	r.awaitState(t, "shop", Starting)
	r.write(t, "shop", stays)
	r.awaitState(t, "shop", Running)
}

// Removed and there again before the app has ended: it runs in the end.
func TestRemovedAndAddedAgain(t *testing.T) {
	r := newRealm(t, nil)
	stubborn := "[uwsgi]\ncommand = /bin/sh -c \"trap '' TERM; echo up; while :; do sleep 0.1; done\"\nreload-mercy = 500ms\n"
	r.write(t, "blog", stubborn)
	first := r.awaitState(t, "blog", Running)
	nettest.Eventually(t, 10*time.Second, "it is up", func() bool { return strings.Contains(r.output.String(), "blog | up") })
	if err := os.Remove(filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Stopping)
	r.write(t, "blog", stubborn)
	r.await(t, "blog", "the new one", func(s Status) bool { return s.State == Running && s.PID != first.PID })
	if !strings.Contains(r.log.String(), "did not stop in time") {
		t.Error("its mercy was not over")
	}
}

func TestReloadAll(t *testing.T) {
	r := newRealm(t, nil)
	before := map[string]int{}
	for i := range 5 {
		name := fmt.Sprint("v", i)
		r.write(t, name, stays)
		before[name] = r.awaitState(t, name, Running).PID
	}
	r.Reload()
	for name, pid := range before {
		r.await(t, name, "reloaded", func(s Status) bool { return s.State == Running && s.PID != pid })
	}
}

func TestEndLeavesNothing(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	cgroup := testCgroup(t)
	r := newRealm(t, func(e *Emperor) { e.Cgroup = cgroup })
	for i := range 8 {
		r.write(t, fmt.Sprint("v", i), "[uwsgi]\ncommand = /bin/sh -c 'trap \"echo last words; exit\" TERM; setsid sleep 1000 & echo up; sleep 1000 & wait'\n")
	}
	r.write(t, "bad", "[uwsgi]\n")
	r.write(t, "failing", "[uwsgi]\ncommand = /no/such/program\n")
	for i := range 8 {
		r.awaitState(t, fmt.Sprint("v", i), Running)
	}
	r.awaitState(t, "bad", Invalid)
	nettest.Eventually(t, 20*time.Second, "all are up", func() bool { return strings.Count(r.output.String(), "| up\n") == 8 })
	r.end()
	if n := strings.Count(r.output.String(), "last words"); n != 8 {
		t.Errorf("%d last words", n)
	}
	if _, err := os.Stat(r.Config.Runtime); err == nil {
		t.Error("the runtime directory is left")
	}
	if cgroup == "" {
		return
	}
	entries, err := os.ReadDir(string(cgroup))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("cgroup %s is left", e.Name())
		}
	}
}

// Callers that come before Run, after it, and while it ends, all return.
func TestCallsAtAnyTime(t *testing.T) {
	r := newRealm(t, nil)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r.Reload()
				r.Lost("nobody", "why")
				r.Registered("tun0", "nobody", netip.MustParseAddr("10.9.0.7"))
				_ = r.Rejoin()
				_ = r.statuses(t.Context())
			}
		})
	}
	r.write(t, "blog", stays)
	r.awaitState(t, "blog", Running)
	r.end()
	close(stop)
	wg.Wait()
}

// A jail that was lost is not given to the next generation.
func TestLostDevice(t *testing.T) {
	e := testEmperor(t)
	e.newMember(iniFile{name: "blog"})
	v := e.vassals["blog"]
	v.state = Starting
	e.lost(v, "gone", 0)
	if v.lost != "gone" {
		t.Error("a loss during the start is forgotten")
	}
	jail, err := vassal.NewJail("blog", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.state, v.jail = Running, jail // never lost: it has no device; gen is nil and must not be touched
	e.lost(v, "gone", 0)
}

func TestReserve(t *testing.T) {
	networks := []Network{{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/24")}, AttachAll: true}}
	e := testEmperor(t, networks...)
	var told map[netip.Addr]string
	e.Reserve = func(network string, reserved map[netip.Addr]string) error {
		told = reserved
		return nil
	}
	dir := t.TempDir()
	e.Config.Monitors = []Monitor{{Dir: dir}}
	for _, c := range []*vassal.Config{goodVassal(t, "auto", ""), goodVassal(t, "shop", "tuntap-device-address = 10.9.0.9")} {
		f := iniFile{name: c.Name, path: filepath.Join(dir, c.Name+".ini")}
		e.newMember(f)
		e.vassals[c.Name].state = Running
		e.expanded([]expansion{{Name: c.Name, Config: c, file: f}})
		e.vassals[c.Name].state = Stopped
	}
	if len(told) != 2 || told[addr("10.9.0.9")] != "shop" {
		t.Fatalf("%v", told)
	}
	e.rescan() // their files are not there
	if len(told) != 0 {
		t.Errorf("after they went: %v", told)
	}
}

func TestSlotsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 1)
		release, err := slot(t.Context(), slots)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second, err := slot(t.Context(), slots) // the first takes long
		if err != nil || time.Since(began) != slotTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		release() // late: it is not the second's that is given back
		ctx, cancel := context.WithTimeout(t.Context(), slotTime/2)
		defer cancel()
		if _, err := slot(ctx, slots); err == nil {
			t.Error("two have the one slot")
		}
		second()
		second()
		if len(slots) != 0 {
			t.Errorf("%d slots are lost", len(slots))
		}
	})
}
