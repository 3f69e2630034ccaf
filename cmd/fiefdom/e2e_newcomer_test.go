package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// A uwsgi without workers, such as one that is a router alone, never says that
// it accepts: a reload does not wait for that, and it is not started anew.
func TestUwsgiWithoutWorkersReloads(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-stats = /run/t/stats\n")
	r.drop("front", "[uwsgi]\nplugins = http\nmaster = true\nhttp = 127.0.0.1:8080\nhttp-to = /run/t/none.sock\nuid = 1501\ngid = 1501\nreload-mercy = 2\n")
	r.start()
	const born = "spawned uWSGI http 1"
	r.logged(born, 1)
	first := r.await("front", "has said that it is ready", func(emperor.Status) bool {
		doc, err := document(r.World, "unix", "/run/t/stats")
		if err != nil {
			return false
		}
		vassals, ok := doc["vassals"].([]any)
		return ok && len(vassals) == 1 && vassals[0].(map[string]any)["ready"] == 1.0
	})
	if first.Accepting {
		t.Fatalf("it accepts: %+v", first)
	}
	r.mustRun("reload", "front")
	r.logged(born, 2)
	if s := r.ps("front"); s.PID != first.PID || s.Restarts != 0 || s.Error != "" {
		t.Errorf("it was started anew: %+v, the pid was %d", s, first.PID)
	}
	r.stop(syscall.SIGTERM)
}

// The exit code of a uwsgi that has no app says nothing to most.
func TestUwsgiWithoutItsAppSaysSo(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("app", "[uwsgi]\nplugins = psgi\npsgi = /run/t/none.pl\nneed-app = true\nsocket = 127.0.0.1:3031\nuid = 1501\ngid = 1501\n")
	r.drop("cmd", "[uwsgi]\ncommand = /bin/sh -c \"exit 22\"\n")
	r.start()
	for vassal, want := range map[string]string{
		"app": "exit code 22: the uwsgi could not load its app; see fiefdom logs app",
		"cmd": "exit code 22",
	} {
		r.await(vassal, want, func(s emperor.Status) bool { return s.State == emperor.Backoff && s.Error == want })
	}
	r.stop(syscall.SIGTERM)
}

// Who may not see an emperor's leases cannot check his vassals, and is not told
// to repair them.
func TestCheckAsAnotherUser(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-e", "-c", "umask 077; mkdir -p /var/lib/fiefdom/emperor; echo {} >/var/lib/fiefdom/emperor/leases.json")
	fiefdom := filepath.Join(filepath.Dir(agentPath(t)), "fiefdom")
	out, err := r.Try(t, "setpriv", "--reuid=1501", "--regid=1501", "--clear-groups", fiefdom, "check", realmDir+"/emperor.ini")
	if err == nil || !strings.Contains(out, "permission denied; run it as root") {
		t.Errorf("%v: %s", err, out)
	}
}
