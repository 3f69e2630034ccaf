package main

import (
	"os"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// environOf is a running vassal's environment.
func (r *realm) environOf(s emperor.Status) map[string]string {
	r.t.Helper()
	env := map[string]string{}
	for line := range strings.SplitSeq(r.proc(s.PID, "environ"), "\x00") {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	return env
}

// The emperor's ini and environment give every vassal options of its own name.
func TestVassalsGetTheirEmperorsOptions(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+
		"vassals-include = %ddefaults.ini\nvassals-include-before = %dbefore.ini\nvassal-set = env=SET=%(vassal_name)\nemperor-extra-extension = .conf\n")
	r.write("/run/t/defaults.ini", "[uwsgi]\nvassal_name = %n\nenv = HOME_OF=/srv/%(vassal_name) %(order)\ncommand = AGENT\n")
	r.write("/run/t/before.ini", "[uwsgi]\norder = before\n")
	r.drop("blog", "[uwsgi]\norder = own\n")
	r.writeAs(iniPath("shop"), "[uwsgi]\nenv = MINE=%n\n", 2001, 2001)
	r.write("/run/t/vassals/site.conf", "[uwsgi]\n")
	r.environ = []string{"UWSGI_VASSAL_ENV=FROM_ENVIRON=/tmp/%n.sock"}
	r.start()
	for _, name := range []string{"blog", "shop", "site"} {
		env := r.environOf(r.reach(name))
		want := map[string]string{"SET": name, "HOME_OF": "/srv/" + name + " before", "FROM_ENVIRON": "/tmp/" + name + ".sock"}
		for key, value := range want {
			if env[key] != value {
				t.Errorf("%s: %s is %q, want %q", name, key, env[key], value)
			}
		}
	}
	// What only root may read is for root's inis only.
	if err := os.Chmod(r.Path("/run/t/defaults.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.writeAs(iniPath("shop"), "[uwsgi]\nenv = MINE=again\n", 2001, 2001)
	s := r.await("shop", "says why it did not take its ini", func(s emperor.Status) bool { return s.Error != "" })
	if s.State != emperor.Running || !strings.Contains(s.Error, "emperor.ini:7: ") || !strings.Contains(s.Error, "permission denied for uid 2001") {
		t.Errorf("%+v", s)
	}
	if out, code := r.run("check", realmDir+"/emperor.ini"); code != exitInvalid || !strings.Contains(out, "permission denied for uid 2001") {
		t.Errorf("check: %d\n%s", code, out)
	}
}

// A skeleton and links to it: each link is a vassal of its own, and with
// emperor-nofollow each changes when it is touched itself.
func TestSkeletons(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-nofollow = true\nemperor-freq = 200ms\n")
	r.write("/run/t/vassals/app.skel", "[uwsgi]\ncommand = AGENT\nenv = NAME=%n\n")
	for _, name := range []string{"blog", "shop"} {
		if err := os.Symlink("app.skel", r.Path(iniPath(name))); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	if a, b := r.environOf(blog)["NAME"], r.environOf(shop)["NAME"]; a != "blog" || b != "shop" {
		t.Errorf("they are named %q and %q", a, b)
	}
	r.Run(t, "touch", "/run/t/vassals/app.skel")
	r.Run(t, "touch", "-h", "-d", "tomorrow", iniPath("shop"))
	r.await("shop", "is a new process", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != shop.PID })
	if s := r.reach("blog"); s.PID != blog.PID {
		t.Errorf("a touched skeleton has started blog anew: %+v", s)
	}
}

// In tyrant mode an ini that changes hands stops its vassal, and so does a
// folder that others may write.
func TestTyrantsVassalChangesHands(t *testing.T) { // T29
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nemperor-freq = 200ms\n")
	r.writeAs(iniPath("blog"), agentIni, 2001, 2001)
	r.writeAs(iniPath("shop"), agentIni, 2002, 2002)
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	if err := os.Chown(r.Path(iniPath("blog")), 2003, 2003); err != nil {
		t.Fatal(err)
	}
	s := r.await("blog", "runs as its new owner", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != blog.PID })
	if status := statusOf(r.proc(s.PID, "status")); status["Uid"] != "2003 2003 2003 2003" {
		t.Errorf("it runs as %v", status)
	}
	if err := os.Chown(r.Path(iniPath("blog")), 0, 0); err != nil {
		t.Fatal(err)
	}
	if s := r.awaitState("blog", emperor.Invalid); s.PID != 0 || !strings.Contains(s.Error, "root") {
		t.Errorf("root's: %+v", s)
	}
	if err := os.Chmod(r.Path("/run/t/vassals"), 0o777); err != nil {
		t.Fatal(err)
	}
	r.Run(t, "touch", iniPath("shop"))
	s = r.awaitState("shop", emperor.Invalid)
	if s.PID != 0 || !strings.Contains(s.Error, "others may write its folder") {
		t.Errorf("in an open folder: %+v", s)
	}
	if r.read("/proc/"+number(shop.PID)+"/status") != "" {
		t.Error("shop's process lives on")
	}
	if err := os.Chmod(r.Path("/run/t/vassals"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	r.reach("shop")
	log, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ini has another owner; stopping the vassal", "ini refused; stopping the vassal"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}
