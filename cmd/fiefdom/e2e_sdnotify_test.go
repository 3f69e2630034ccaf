package main

import (
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// An app tells by sd_notify how it is; nobody else can in its place.
func TestNotify(t *testing.T) {
	t.Parallel()
	nettest.Program(t, "systemd-notify") // speaks for the app
	r := newRealm(t, nativeNetwork, map[string]string{
		"told":   "[uwsgi]\ncommand = sh -c 'systemd-notify --status=\"warming up\"; while ! test -e /run/t/go; do sleep 0.05; done; systemd-notify --ready \"STATUS=at $(printf \"\\033[1m\")work\"; exec AGENT'\nready = notify\nbind = /run/t:ro\n",
		"silent": "[uwsgi]\ncommand = AGENT\nready = notify\nready-timeout = 1\n",
		"dog":    "[uwsgi]\ncommand = sh -c 'while ! test -e /run/t/go; do systemd-notify WATCHDOG=1; sleep 0.1; done; exec sleep 1000'\nwatchdog = 3\nbind = /run/t:ro\n",
		"flood":  "[uwsgi]\ncommand = sh -c 'systemd-notify --ready; while :; do systemd-notify STATUS=again; done'\nready = notify\n",
		"other":  agentIni,
	})
	r.await("told", "warms up", func(s emperor.Status) bool { return s.State == emperor.Starting && s.Says == "warming up" })
	r.await("silent", "has failed", func(s emperor.Status) bool {
		return s.State == emperor.Backoff && strings.Contains(s.Error, "not ready within 1s") && strings.Contains(s.Error, "READY=1")
	})
	r.awaitState("flood", emperor.Running)
	// Its socket is in its jail alone.
	told := r.reach("other")
	if out, err := r.sh(told, "for n in 1 2 3; do NOTIFY_SOCKET=@fiefdom/notify.$n systemd-notify --ready; done"); err == nil {
		t.Errorf("another vassal can notify: %s", out)
	}
	dog := r.awaitState("dog", emperor.Running)
	r.write("/run/t/go", "")
	r.await("told", "is ready", func(s emperor.Status) bool { return s.State == emperor.Running && s.Says == "at ?[1mwork" })
	r.await("dog", "is started again", func(s emperor.Status) bool { return s.Restarts > 0 && strings.Contains(s.LastEnd, "WATCHDOG=1") })
	if dog.Restarts != 0 {
		t.Errorf("it was started again while it said that it lives")
	}
	nettest.Eventually(t, patience, "status tells it", func() bool { return strings.Contains(r.mustRun("status", "told"), "at ?[1mwork") })
}
