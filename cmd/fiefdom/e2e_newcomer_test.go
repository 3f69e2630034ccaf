package main

import (
	"path/filepath"
	"strconv"
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

// What a newcomer does not know yet, he is told where he meets it.
func TestNewcomerIsTold(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("quiet", "[uwsgi]\ncommand = sleep 1000\n")
	r.Run(t, "sh", "-ec", "mkdir -m 700 /run/t/mine; echo '#!/bin/sh' >/run/t/mine/run; cp /run/t/mine/run /run/t/plain; chmod 755 /run/t/mine/run; chmod 644 /run/t/plain")
	r.drop("mine", "[uwsgi]\ncommand = /run/t/mine/run\n")
	r.drop("plain", "[uwsgi]\ncommand = /run/t/plain\n")
	r.drop("shell", "[uwsgi]\ncommand = cd /srv && ./run\n")
	r.start()
	quiet := r.awaitState("quiet", emperor.Running)
	if out := r.mustRun("logs", "quiet"); !strings.Contains(out, "PYTHONUNBUFFERED=1") {
		t.Errorf("logs of an app that says nothing: %q", out)
	}
	for vassal, want := range map[string]string{
		"mine":  "/run/t/mine/run: permission denied; uid %d, the app's, may not enter a folder on the way there",
		"plain": "permission denied; uid %d, the app's, may not run it",
		"shell": "that is a word of the shell's: write command = sh -c",
	} {
		s := r.await(vassal, "says why it does not run", func(s emperor.Status) bool { return s.Error != "" && s.UID > 0 })
		if want = strings.ReplaceAll(want, "%d", strconv.Itoa(s.UID)); !strings.Contains(s.Error, want) {
			t.Errorf("%s: %q does not say %q", vassal, s.Error, want)
		}
	}
	fiefdom := filepath.Join(filepath.Dir(agentPath(t)), "fiefdom")
	for command, want := range map[string]string{
		"ps":           "none of the inis is yours; root sees all",
		"status quiet": `no vassal "quiet" among those of uid 1501; root sees all`,
	} {
		args := append([]string{"--reuid=1501", "--regid=1501", "--clear-groups", fiefdom}, strings.Fields(command)...)
		if out, _ := r.Try(t, "setpriv", args...); !strings.Contains(out, want) {
			t.Errorf("%s of somebody else: %q does not say %q", command, out, want)
		}
	}

	// A reload takes a changed ini of the emperor, and the apps go on; a bad one changes nothing.
	r.write(realmDir+"/emperor.ini", r.read(realmDir+"/emperor.ini")+"emperor-frq = 3\n")
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.logged("not upgraded; going on", 1)
	r.write(realmDir+"/emperor.ini", strings.Replace(r.read(realmDir+"/emperor.ini"), "emperor-frq = 3", "emperor-freq = 4", 1))
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.logged("vassal adopted", 1)
	if why := unlike(quiet, r.await("quiet", "runs", func(s emperor.Status) bool { return s.State == emperor.Running })); why != "" {
		t.Error(why)
	}
	r.stop(syscall.SIGTERM)
}
