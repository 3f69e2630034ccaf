package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// From a command line to a running app: the emperor that runs says where its
// inis are.
func TestNewVassal(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.start()
	out := r.mustRun("new", "--wait", "hello", "--", agentPath(t))
	s := r.reach("hello")
	want := regexp.MustCompile(`^/run/t/vassals/hello.ini is written\nhello runs: pid \d+, uid ` + uid(s.UID) + `, address ` + s.Addresses[0].String() + "\n$")
	if !want.MatchString(out) {
		t.Errorf("new printed %q, want %s", out, want)
	}
	out = r.mustRun("new", "second", "--", agentPath(t))
	if out != "/run/t/vassals/second.ini is written\nThe emperor emperor starts it now:\n  fiefdom status second\n  fiefdom logs -f second\n" {
		t.Errorf("new printed %q", out)
	}
	r.reach("second")
	out = r.mustRun("new", "--dir", "/run/t", "third", "--", agentPath(t))
	if !strings.HasSuffix(out, "The emperor emperor does not watch this folder.\n") {
		t.Errorf("new printed %q", out)
	}
	var told newVassal
	if err := json.Unmarshal([]byte(r.mustRun("new", "--json", "--wait", "fourth", "--", agentPath(t))), &told); err != nil {
		t.Fatal(err)
	}
	if told.Name != "fourth" || told.File != iniPath("fourth") || !slices.Equal(told.Options, []newOption{{"command", agentPath(t)}}) ||
		told.Emperor != "emperor" || told.Status == nil || told.Status.PID != r.reach("fourth").PID {
		t.Errorf("new --json printed %+v", told)
	}
	// An app that ends is no app that runs.
	out, code := r.run("new", "--wait", "brief", "--", "/bin/sh", "-c", "exit 3")
	if code != exitFailed || !strings.Contains(out, "brief does not run: exit code 3; see: fiefdom logs brief\n") {
		t.Errorf("exit code %d: %s", code, out)
	}
	r.awaitState("brief", emperor.Backoff)
	r.stop(syscall.SIGTERM)
}
