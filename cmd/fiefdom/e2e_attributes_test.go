package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	asksAttributes = "emperor-collect-attribute = plan\nemperor-collect-attr = mail\nemperor-wrapper-attr = wrap\nemperor-chdir-attr = home\n"

	// itself tells of its start and becomes the real uwsgi.
	itself = "#!/bin/sh\necho wrapped in $PWD, $(grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' ' ')\nexec uwsgi \"$@\"\n"
)

// What a vassal's ini tells the emperor is shown, and used as the emperor's ini
// says; it stays when the app dies, in the same emperor and in the next.
func TestAttributesOfAVassal(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+asksAttributes+"emperor-wrapper = /no/such/wrapper\n")
	r.writeApps()
	r.writeProgram("/run/t/itself", itself)
	r.drop("app", oneWorker+"[emperor]\nplan = gold\nmail = a@example.org\nmail = b@example.org\nother = x\nwrap = /run/t/itself\nhome = /run/t/www\n")
	r.drop("blog", agentIni)
	r.start()
	want := map[string][]string{"plan": {"gold"}, "mail": {"a@example.org", "b@example.org"}, "wrap": {"/run/t/itself"}, "home": {"/run/t/www"}}
	shown := func() {
		t.Helper()
		var s emperor.Status
		if err := json.Unmarshal([]byte(r.mustRun("status", "app", "--json")), &s); err != nil || !reflect.DeepEqual(s.Attributes, want) {
			t.Errorf("status shows %v, %v; want %v", s.Attributes, err, want)
		}
	}
	first := r.awaitPage("app", "load 1")
	r.logged("wrapped in /run/t/www, ", 1)
	shown()
	if s := r.reach("blog"); s.Attributes != nil {
		t.Errorf("blog has attributes: %v", s.Attributes)
	}
	r.kill(first.PID)
	r.await("app", "runs again", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != first.PID })
	r.awaitPage("app", "load 1")
	r.logged("wrapped in /run/t/www, ", 2)
	shown()
	r.stop(syscall.SIGTERM)
	r.start()
	r.awaitPage("app", "load 1")
	shown()
	r.stop(syscall.SIGTERM)
}

// In tyrant mode an owner's wrapper has his rights, and his folder must be one
// that he may enter.
func TestAttributesOfATenant(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+asksAttributes+"emperor-tyrant = true\n")
	r.writeApps()
	r.writeProgram("/run/t/itself", itself)
	r.Run(t, "sh", "-e", "-c", "mkdir -p -m 700 /run/t/secret; mkdir -m 755 /run/t/secret/open")
	r.writeAs(iniPath("app"), ownersWorker+"[emperor]\nwrap = /run/t/itself\nhome = /run/t/www\nplan = @(exec://id -u)\n", 1501, 1501)
	r.writeAs(iniPath("peek"), "[uwsgi]\ncommand = AGENT\n[emperor]\nhome = /run/t/secret/open\n", 1502, 1502)
	r.writeAs(iniPath("steal"), "[uwsgi]\ncommand = AGENT\n[emperor]\nplan = @(/etc/shadow)\n", 1502, 1502)
	r.start()
	if s := r.awaitPage("app", "load 1"); !reflect.DeepEqual(s.Attributes["plan"], []string{"1501"}) {
		t.Errorf("its section was read as somebody else: %v", s.Attributes)
	}
	r.logged("wrapped in /run/t/www, Uid: 1501 1501 1501 1501 CapEff: 0000000000000000 NoNewPrivs: 1", 1)
	if s := r.awaitState("peek", emperor.Backoff); !strings.Contains(s.Error, "chdir /run/t/secret/open: permission denied") {
		t.Errorf("the tenant begins where he may not: %+v", s)
	}
	if s := r.awaitState("steal", emperor.Invalid); !strings.Contains(s.Error, iniPath("steal")+":4: ") || !strings.Contains(s.Error, "permission denied") {
		t.Errorf("the tenant reads what he may not: %+v", s)
	}
	r.stop(syscall.SIGTERM)
}

// writeProgram writes a program that everybody may run.
func (r *realm) writeProgram(path, text string) {
	r.t.Helper()
	r.write(path, text)
	if err := os.Chmod(r.Path(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
}
