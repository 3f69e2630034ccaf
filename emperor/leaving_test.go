package emperor

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// A vassal that stops because its ini is gone, or another's by now, is not
// brought back by a word of its operator's.
func TestNoWordBringsBackWhoLeaves(t *testing.T) {
	nettest.NoLeaks(t)
	for _, word := range []string{"start", "restart", "stop"} {
		t.Run(word, func(t *testing.T) {
			r := newRealm(t, nil)
			r.write(t, "blog", "[uwsgi]\ncommand = /bin/sh -c 'trap : TERM; echo deaf; while :; do sleep 0.05; done'\nreload-mercy = 1\n")
			first := r.awaitState(t, "blog", Running)
			r.awaitOutput(t, "blog | deaf")
			if err := os.Remove(first.File); err != nil {
				t.Fatal(err)
			}
			r.awaitState(t, "blog", Stopping)
			if s, err := r.Do(t.Context(), "blog", word); err == nil || !strings.Contains(err.Error(), "gone") {
				t.Errorf("%+v, %v", s, err)
			}
			if all, err := r.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("%+v, %v", all, err)
			}
		})
	}
}

// Of the vassal of before, its output and its command, a new owner of the ini
// learns nothing while it stops.
func TestNewOwnersSeeNothingOfTheOld(t *testing.T) {
	const alice, bob = 61001, 61002
	for name, change := range map[string]func(t *testing.T, r *realm, file string) error{
		"it changes hands": func(_ *testing.T, _ *realm, file string) error { return unix.Chown(file, bob, bob) },
		"another's comes": func(t *testing.T, r *realm, file string) error {
			t.Helper()
			b, err := os.ReadFile(file)
			if err == nil {
				err = os.Remove(file)
			}
			r.awaitState(t, "blog", Stopping)
			if err == nil {
				err = os.WriteFile(r.dir+"/../blog.bob", b, 0o644)
			}
			if err == nil {
				err = unix.Chown(r.dir+"/../blog.bob", bob, bob)
			}
			if err == nil {
				err = os.Rename(r.dir+"/../blog.bob", file)
			}
			r.awaitLog(t, "another owner; stopping")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { newOwnerSeesNothing(t, alice, bob, change) })
	}
}

func newOwnerSeesNothing(t *testing.T, alice, bob int, change func(t *testing.T, r *realm, file string) error) {
	t.Helper()
	r := newRealm(t, func(e *Emperor) { e.Config.Tyrant, e.Config.Freq = true, 50*time.Millisecond })
	staged := r.dir + "/../blog.new"
	write(t, staged, "[uwsgi]\ncommand = /bin/sh -c 'trap : TERM; echo secret; while :; do sleep 0.05; done'\nreload-mercy = 2\n")
	if err := os.Chown(staged, alice, alice); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(staged, r.dir+"/blog.ini"); err != nil {
		t.Fatal(err)
	}
	first := r.awaitState(t, "blog", Running)
	r.awaitOutput(t, "blog | secret")
	if code, text := r.as(t, alice, "GET", "/vassals/blog/logs"); code != 200 || !strings.Contains(text, "secret") {
		t.Errorf("its own owner: %d %q", code, text)
	}
	if err := change(t, r, first.File); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Stopping)
	r.Reload() // what it says is not done with what is left of the old one
	for _, path := range []string{"/vassals/blog/logs", "/vassals/blog"} {
		if code, text := r.as(t, bob, "GET", path); code != 404 {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	r.await(t, "blog", "is the new owner's", func(s Status) bool { return s.State == Running && s.UID == bob })
	nettest.Eventually(t, 10*time.Second, "the new owner's own", func() bool {
		code, text := r.as(t, bob, "GET", "/vassals/blog/logs")
		return code == 200 && text == "secret\n"
	})
}

// In tyrant mode an ini that changes hands stops its vassal, and what the new
// owner asks for meanwhile is done with his ini alone.
func TestWordsOfANewOwner(t *testing.T) {
	const alice, bob = 61001, 61002
	r := newRealm(t, func(e *Emperor) { e.Config.Tyrant, e.Config.Freq = true, 50*time.Millisecond })
	staged := r.dir + "/../blog.new"
	write(t, staged, "[uwsgi]\ncommand = /bin/sh -c 'trap : TERM; echo deaf; while :; do sleep 0.05; done'\nreload-mercy = 1\n")
	if err := os.Chown(staged, alice, alice); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(staged, r.dir+"/blog.ini"); err != nil {
		t.Fatal(err)
	}
	first := r.awaitState(t, "blog", Running)
	r.awaitOutput(t, "blog | deaf")
	if err := unix.Chown(first.File, bob, bob); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Stopping)
	r.Reload()
	if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.UID != bob {
		t.Errorf("%+v, %v", s, err)
	}
	if s := r.awaitState(t, "blog", Running); s.UID != bob {
		t.Errorf("uid %d runs in the name of %d", s.UID, bob)
	}
}
