package emperor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/vassal"
)

// Whatever state a vassal is in when the policy becomes narrower than its ini, it ends
// as one whose ini is bad, with nothing of it left; and is back when the policy is wider.
func TestEveryStateObeysAPolicyThatChanges(t *testing.T) {
	const uid = 61200
	policies := t.TempDir()
	file := filepath.Join(policies, "policy.ini")
	write(t, file, "")
	r := newRealm(t, func(e *Emperor) {
		e.Config.Tyrant, e.Config.PolicyFile, e.Config.OnDemand.Extension = true, file, ".at"
		if errs := e.Config.ReadPolicy(nil); errs.Failed() {
			t.Fatal(errs)
		}
	})
	socket := filepath.Join(filepath.Dir(r.dir), "sockets", "sleeps")
	if err := errors.Join(os.Mkdir(filepath.Dir(socket), 0o755), os.Chown(filepath.Dir(socket), uid, uid)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"runs":    stays + "unshare = uts\n",
		"sleeps":  stays + "unshare = uts\n",
		"slow":    stays + "ready = delay:600\nready-timeout = 700\nunshare = uts\n",
		"deaf":    "[uwsgi]\ncommand = /bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nreload-mercy = 3600\nunshare = uts\n",
		"fails":   "[uwsgi]\ncommand = /bin/sh -c 'exit 3'\nunshare = uts\n",
		"stopped": stays + "unshare = uts\n",
		"within":  stays,
	} {
		path := filepath.Join(r.dir, name+".ini")
		if name == "sleeps" {
			write(t, path+".at", socket)
			if err := os.Chown(path+".at", uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		r.write(t, name, text)
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	r.call(r.rescan)
	before := map[string]State{"runs": Running, "sleeps": Sleeping, "slow": Starting, "fails": Backoff, "stopped": Running, "within": Running, "deaf": Running}
	for name, state := range before {
		r.await(t, name, string(state), func(s Status) bool {
			return s.State == state && (state != Starting || s.PID > 0) && (state != Backoff || s.Deaths > 1)
		})
	}
	if _, err := r.Do(t.Context(), "stopped", "stop"); err != nil {
		t.Fatal(err)
	}
	within := r.awaitState(t, "within", Running).PID
	write(t, file, "[policy]\nunshare = none\n")
	r.ReloadPolicy()
	for name := range before {
		if name == "within" || name == "stopped" {
			continue
		}
		s := r.await(t, name, "invalid", func(s Status) bool { return s.State == Invalid })
		if s.PID != 0 || !strings.Contains(s.Error, "unshare = uts is beyond the operator's policy") {
			t.Errorf("%s: pid %d: %s", name, s.PID, s.Error)
		}
	}
	if s, err := r.Do(t.Context(), "stopped", "start"); err == nil && s.State != Invalid {
		t.Errorf("who was stopped is %s", s.State)
	}
	if c, err := net.Dial("unix", socket); err == nil {
		_ = c.Close()
		t.Error("its door is open")
	}
	if err := os.Remove(filepath.Join(r.dir, "deaf.ini")); err != nil { // it would not hear the end of the test
		t.Fatal(err)
	}
	r.call(r.rescan)
	delete(before, "deaf")
	delete(before, "stopped") // a bad ini that has become good is started
	write(t, file, "[policy]\n")
	r.Reload()
	for name, state := range before {
		r.await(t, name, string(state), func(s Status) bool { return s.State == state })
	}
	if s := r.awaitState(t, "within", Running); s.PID == 0 || within == 0 {
		t.Errorf("pid %d, then %d", within, s.PID)
	}
}

// A policy that has become bad leaves the one in force as it is.
func TestBadPolicyChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.ini")
	write(t, file, "[policy]\nvassals = 1\n")
	e := testEmperor(t)
	e.Config.Tyrant, e.Config.PolicyFile = true, file
	if errs := e.Config.ReadPolicy(nil); errs.Failed() {
		t.Fatal(errs)
	}
	for _, text := range []string{"[policy]\nvassal = 9\n", "[polcy]\nvassals = 9\n", "[policy]\nvassals = 9\n\x00"} {
		write(t, file, text)
		e.takePolicy(e.Config.rereadPolicy(nil))
		if most := e.Config.Policy.of(owner{1500, 1500}).vassals; most != 1 {
			t.Errorf("%q: %d vassals", text, most)
		}
	}
	write(t, file, "[policy]\nvassals = 2\n")
	e.takePolicy(e.Config.rereadPolicy(nil))
	if most := e.boundsOf(&vassal.Config{UID: &vassal.Identity{ID: 1500}}).vassals; most != 2 {
		t.Errorf("a good one: %d vassals", most)
	}
}

// A policy that narrows confinement reaches those who run: who asks for less than it
// wants is invalid, who does not say is started anew, confined as it wants.
func TestNarrowedConfinementReachesWhoRuns(t *testing.T) {
	const uid = 61200
	file := filepath.Join(t.TempDir(), "policy.ini")
	write(t, file, "[policy]\nconfine = compat\n")
	r := newRealm(t, func(e *Emperor) {
		e.Config.Tyrant, e.Config.PolicyFile = true, file
		if errs := e.Config.ReadPolicy(nil); errs.Failed() {
			t.Fatal(errs)
		}
	})
	for name, text := range map[string]string{"free": stays + "confine = compat\n", "silent": stays} {
		r.write(t, name, text)
		if err := os.Chown(filepath.Join(r.dir, name+".ini"), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	r.call(r.rescan)
	level := func(name string, want vassal.Level) {
		t.Helper()
		r.await(t, name, string(want), func(s Status) bool {
			return s.State == Running && s.Confinement != nil && s.Confinement.Level == want
		})
	}
	level("free", vassal.LevelCompat)
	level("silent", vassal.LevelDefault)
	write(t, file, "[policy]\nconfine = strict\n")
	r.Reload()
	if s := r.await(t, "free", "invalid", func(s Status) bool { return s.State == Invalid }); s.PID != 0 || !strings.Contains(s.Error, "confine = compat is beyond the operator's policy") {
		t.Errorf("pid %d: %s", s.PID, s.Error)
	}
	level("silent", vassal.LevelStrict)
}

// A place is free when its vassal goes, whoever's it was: also root's.
func TestWhoGoesMakesRoom(t *testing.T) {
	for _, uid := range []int{0, 61200} {
		cl := Claims{owners: map[string]int{"blog": uid}}
		if cl.Remove("blog"); !cl.freed {
			t.Errorf("the place of uid %d is not given back", uid)
		}
	}
}
