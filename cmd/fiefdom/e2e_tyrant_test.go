package main

import (
	"fmt"
	"os"
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
	// Of those that are read together some have what they ask for.
	many := []string{"many1", "many2", "many3"}
	for i, name := range many {
		r.writeAs(iniPath(name), fmt.Sprintf("[uwsgi]\npublish = %d-%d\ncommand = AGENT\n", 10_000*(i+1), 10_000*(i+1)+511), owner, group)
	}
	r.write("/run/t/secret.ini", "[uwsgi]\nenv = SECRET=1\n")
	if err := os.Chmod(r.Path("/run/t/secret.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.drop("roots", agentIni)
	r.writeAs(iniPath("blog"), agentIni, owner, group)
	r.writeAs(iniPath("own-uid"), "[uwsgi]\nuid = 2001\ngid = 2002\ncommand = AGENT\n", owner, group)
	r.start()
	ended := map[emperor.State]int{}
	for _, name := range many {
		s := r.await(name, "runs or is refused", func(s emperor.Status) bool { return s.State == emperor.Running || s.State == emperor.Invalid })
		if ended[s.State]++; s.State == emperor.Invalid && !strings.Contains(s.Error, iniPath(name)+":2: publish: 512 ports, and the other vassals of uid 2001 publish 1024; an owner may publish 1024") {
			t.Errorf("%s: %q", name, s.Error)
		}
	}
	if ended[emperor.Running] != 2 || ended[emperor.Invalid] != 1 {
		t.Errorf("of three with 512 ports each: %v", ended)
	}
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
