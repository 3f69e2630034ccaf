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
			r.write(t, "blog", "[uwsgi]\ncommand = /bin/sh -c 'trap : TERM; while :; do sleep 0.05; done'\nreload-mercy = 1\n")
			first := r.awaitState(t, "blog", Running)
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

// In tyrant mode an ini that changes hands stops its vassal, and what the new
// owner asks for meanwhile is done with his ini alone.
func TestWordsOfANewOwner(t *testing.T) {
	const alice, bob = 61001, 61002
	r := newRealm(t, func(e *Emperor) { e.Config.Tyrant, e.Config.Freq = true, 50*time.Millisecond })
	staged := r.dir + "/../blog.new"
	write(t, staged, "[uwsgi]\ncommand = /bin/sh -c 'trap : TERM; while :; do sleep 0.05; done'\nreload-mercy = 1\n")
	if err := os.Chown(staged, alice, alice); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(staged, r.dir+"/blog.ini"); err != nil {
		t.Fatal(err)
	}
	first := r.awaitState(t, "blog", Running)
	if err := unix.Chown(first.File, bob, bob); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, "blog", Stopping)
	if s, err := r.Do(t.Context(), "blog", "restart"); err != nil || s.UID != bob {
		t.Errorf("%+v, %v", s, err)
	}
	if s := r.awaitState(t, "blog", Running); s.UID != bob {
		t.Errorf("uid %d runs in the name of %d", s.UID, bob)
	}
}
