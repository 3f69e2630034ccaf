package main

import (
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// An upgrade takes no ini by which the next emperor would lose what runs.
func TestUpgradeRefusesAnIniThatCostsVassals(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"shop": agentIni})
	r.inet(nettest.InetAddr4, nil)
	before := map[string]emperor.Status{"shop": r.reach("shop")}
	for line, want := range map[string]string{
		"instance = other\n":       "another one counts from a restart on",
		"emperor-orphans = kill\n": "would end all vassals",
		"tuntap-router = fief9 /run/fiefdom/emperor/fief9.sock\ntuntap-router-address = 198.51.100.129/25\n": "network fief9",
	} {
		r.write(realmDir+"/emperor.ini", nativeNetwork+line)
		if out, code := r.run("upgrade"); code != exitFailed || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d\n%s", line, code, out)
		}
	}
	// Nobody waits for a page that cannot be.
	r.write(realmDir+"/emperor.ini", nativeNetwork+"emperor-web = /nowhere/web.sock\nemperor-stats = /nowhere/stats.sock\nmetrics = /nowhere/metrics.sock\n")
	r.mustRun("upgrade")
	r.same(before)
	for _, want := range []string{"no web page", "no stats server", "no metrics"} {
		if !strings.Contains(r.allLogged(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// A line of our own in the ini of a vassal that was stopped starts nobody.
func TestSavedRuleStartsNobody(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"shop": ruledIni})
	r.reach("shop")
	r.mustRun("stop", "shop")
	r.mustRun("firewall", "add", "--save", "shop", "out", "any", "203.0.113.9", "deny")
	r.drop("late", agentIni)
	r.awaitState("late", emperor.Running) // so the former change has been seen
	if s := r.ps("shop"); s.State != emperor.Stopped {
		t.Errorf("shop is %s", s.State)
	}
}

// A reload takes what has changed in a file that the emperor's ini includes.
func TestReloadTakesAChangedInclude(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"include = "+realmDir+"/more.ini\n")
	r.write(realmDir+"/more.ini", "[uwsgi]\nemperor-freq = 3\n")
	r.drop("shop", agentIni)
	r.start()
	before := map[string]emperor.Status{"shop": r.reach("shop")}
	r.write(realmDir+"/more.ini", "[uwsgi]\nemperor-freq = 3\nvassal-set = env=COLOUR=red\n")
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.logged("vassal adopted", 1)
	shop := r.await("shop", "has what the include says", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != before["shop"].PID
	})
	if got := r.environOf(shop)["COLOUR"]; got != "red" {
		t.Errorf("COLOUR is %q", got)
	}
}
