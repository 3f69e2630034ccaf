package main

import (
	"os"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// Inis come from folders, patterns and links; from several places at once, the
// first of a name has it.
func TestWhereInisComeFrom(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor = glob:///run/t/more/*/app-*.ini\nemperor = dir:///run/t/extra\nemperor-freq = 200ms\n")
	for _, dir := range []string{"more/a", "more/b", "extra", "elsewhere"} {
		if err := os.MkdirAll(r.Path(realmDir+"/"+dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.drop("blog", agentIni)
	r.write("/run/t/extra/blog.ini", "[uwsgi]\ncommand = /no/such/program\n")
	r.write("/run/t/extra/shop.ini", agentIni)
	r.write("/run/t/more/a/app-one.ini", agentIni)
	r.write("/run/t/more/a/other.ini", agentIni)
	r.write("/run/t/vassals/notes.txt", agentIni)
	r.start()
	r.reach("blog")
	r.reach("shop")
	r.reach("app-one")
	if s := r.ps("blog"); s.File != iniPath("blog") {
		t.Errorf("blog comes from %s", s.File)
	}
	for _, name := range []string{"other", "notes"} {
		if s := r.ps(name); s.Name != "" {
			t.Errorf("%s is a vassal: %+v", name, s)
		}
	}
	// The kernel gives no notice of a pattern's folders, nor of a link's target.
	r.write("/run/t/more/b/app-two.ini", agentIni)
	r.reach("app-two")
	r.write("/run/t/elsewhere/linked.ini", agentIni)
	if err := os.Symlink("/run/t/elsewhere/linked.ini", r.Path(iniPath("linked"))); err != nil {
		t.Fatal(err)
	}
	pid := r.reach("linked").PID
	r.write("/run/t/elsewhere/linked.ini", agentIni+"; changed\n")
	r.await("linked", "is a new process", func(s emperor.Status) bool { return s.State == emperor.Running && s.PID != pid })
}
