package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// In tyrant mode the owner of an ini is who the vassal runs as, and no ini
// gives him more than he has.
func TestTyrantMode(t *testing.T) { // T31
	t.Parallel()
	const owner, group = 2001, 2002
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	refused := map[string]struct{ ini, place, want string }{
		"hook":       {"[uwsgi]\ncommand = AGENT\nexec-as-root = touch /run/t/pwned\n", ":3: ", "hooks"},
		"user-hook":  {"[uwsgi]\nexec-as-user = touch /run/t/pwned\ncommand = AGENT\n", ":2: ", "hooks"},
		"mount":      {"[uwsgi]\nmount-post-jail = none tmpfs /tmp\ncommand = AGENT\n", ":2: ", "hooks"},
		"cap":        {"[uwsgi]\ncommand = AGENT\ncap = net_admin\n", "", "cap "},
		"uid":        {"[uwsgi]\nuid = root\ncommand = AGENT\n", ":2: ", "uid root"},
		"other-uid":  {"[uwsgi]\nuid = 2003\ncommand = AGENT\n", ":2: ", "uid 2003"},
		"gid":        {"[uwsgi]\ngid = 0\ncommand = AGENT\n", ":2: ", "gid 0"},
		"add-gid":    {"[uwsgi]\nadd-gid = 0\ncommand = AGENT\n", ":2: ", "add-gid"},
		"chroot":     {"[uwsgi]\nchroot = /run/t\ncommand = AGENT\n", "", "chroot"},
		"shadow":     {"[uwsgi]\nenv = SHADOW=@(/etc/shadow)\ncommand = AGENT\n", ":2: ", "permission denied"},
		"secret":     {"[uwsgi]\ninclude = /run/t/secret.ini\ncommand = AGENT\n", ":2: ", "permission denied"},
		"include":    {"[uwsgi]\ninclude = /etc/shadow\ncommand = AGENT\n", ":2: ", "must end in .ini"},
		"exec-magic": {"[uwsgi]\nenv = ID=@(exec://touch /run/t/pwned)\ncommand = AGENT\n", "", ""},
	}
	for name, tt := range refused {
		r.writeAs(iniPath(name), tt.ini, owner, group)
	}
	r.write("/run/t/secret.ini", "[uwsgi]\nenv = SECRET=1\n")
	if err := os.Chmod(r.Path("/run/t/secret.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.drop("roots", agentIni)
	r.writeAs(iniPath("blog"), agentIni, owner, group)
	r.writeAs(iniPath("own-uid"), "[uwsgi]\nuid = 2001\ngid = 2002\ncommand = AGENT\n", owner, group)
	r.start()
	for _, name := range []string{"blog", "own-uid"} {
		s := r.reach(name)
		status := statusOf(r.proc(s.PID, "status"))
		if status["Uid"] != "2001 2001 2001 2001" || status["Gid"] != "2002 2002 2002 2002" || status["CapBnd"] != noCaps || status["NoNewPrivs"] != "1" {
			t.Errorf("%s runs as %v", name, status)
		}
	}
	for name, tt := range refused {
		if name == "exec-magic" {
			continue // may be fine or not, but not root's
		}
		s := r.awaitState(name, emperor.Invalid)
		if !strings.Contains(s.Error, iniPath(name)+tt.place) || !strings.Contains(s.Error, tt.want) {
			t.Errorf("%s: the error %q has not both %q and %q", name, s.Error, iniPath(name)+tt.place, tt.want)
		}
	}
	if s := r.awaitState("roots", emperor.Invalid); !strings.Contains(s.Error, "root") {
		t.Errorf("an ini of root's: %q", s.Error)
	}
	if _, err := r.Try(t, "test", "!", "-e", "/run/t/pwned"); err != nil {
		t.Error("a tenant's ini has run a command with rights to write here")
	}
}

// An owner sees and commands his own vassals, and no others.
func TestOwnersCommandTheirOwn(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.writeAs(iniPath("blog"), agentIni, 2001, 2001)
	r.writeAs(iniPath("shop"), agentIni, 2002, 2002)
	r.start()
	r.reach("blog")
	shop := r.reach("shop")
	as := func(args ...string) (string, error) {
		return r.Try(t, "setpriv", append([]string{"--reuid=2001", "--regid=2001", "--clear-groups", filepath.Join(filepath.Dir(agentPath(t)), "fiefdom")}, args...)...)
	}
	if out, err := as("ps"); err != nil || !strings.Contains(out, "blog") || strings.Contains(out, "shop") {
		t.Errorf("ps of blog's owner: %v\n%s", err, out)
	}
	if out, err := as("restart", "blog"); err != nil {
		t.Errorf("restart by its owner: %v\n%s", err, out)
	}
	if out, err := as("stop", "shop"); err == nil || r.ps("shop").PID != shop.PID {
		t.Errorf("stop of somebody else's vassal: %v\n%s", err, out)
	}
}
