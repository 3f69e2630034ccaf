package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// An emperor with logto writes all that it says to that file, behind what is
// there, and its vassals' output with it.
func TestEmperorsLogFile(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\nlogto = /run/t/emperor.log\npidfile = /run/t/emperor.pid\n")
	r.write("/run/t/emperor.log", "of before\n")
	r.drop("blog", "[uwsgi]\ncommand = /bin/sh -c \"echo hello; exec sleep 1000\"\n")
	r.start()
	r.awaitState("blog", emperor.Running)
	nettest.Eventually(t, patience, "both are in the file", func() bool {
		text := r.read("/run/t/emperor.log")
		return strings.HasPrefix(text, "of before\n") && strings.Contains(text, "emperor running") && strings.Contains(text, "blog | hello")
	})
	if out, code := r.run("run", realmDir+"/emperor.ini"); code == 0 || !strings.Contains(out, "instance") {
		t.Errorf("a second emperor of the instance says %q in a terminal, exit code %d", out, code)
	}
	r.stop(syscall.SIGTERM)
	if said, err := os.ReadFile(r.log); err != nil || strings.Contains(string(said), "emperor running") {
		t.Errorf("standard error has %q, %v", said, err)
	}
	if pid := r.read("/run/t/emperor.pid"); pid != "" {
		t.Errorf("the pidfile has %q", pid)
	}
}
