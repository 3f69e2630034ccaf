package emperor

import (
	"path/filepath"
	"strings"
	"testing"
)

// An ini that turns bad while its vassal is being started is still told of when
// the vassal runs, with what it was started with, and until it is good again.
func TestBadIniDuringAStartIsToldOf(t *testing.T) {
	r := newRealm(t, nil)
	gate := filepath.Join(t.TempDir(), "open")
	const app = "command = sleep 1000\n"
	good := "[uwsgi]\nexec-as-root = while ! test -e " + gate + "; do sleep 0.01; done\n" + app
	r.write(t, "slow", good)
	r.awaitState(t, "slow", Starting)
	r.write(t, "slow", good+"limit-as = much\n")
	r.await(t, "slow", "says that its ini is bad", func(s Status) bool { return strings.Contains(s.Error, "limit-as = much") })
	write(t, gate, "")
	if s := r.awaitState(t, "slow", Running); !strings.Contains(s.Error, "limit-as = much") {
		t.Errorf("it runs, and of its ini it says %q", s.Error)
	}
	r.write(t, "slow", "[uwsgi]\n"+app)
	r.await(t, "slow", "is well", func(s Status) bool { return s.State == Running && s.Error == "" })
}
