package main

import (
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// Unsaved rules outlive the router, the emperor, an upgrade, and the emperor with
// his vault; not a file that changed meanwhile.
func TestUnsavedRulesSurvive(t *testing.T) {
	t.Parallel()
	r := newRealm(t, chainedNetwork, map[string]string{"shop": agentIni, "blog": ruledIni})
	r.inet(nettest.InetAddr4, nil)
	s, blog := r.reach("shop"), r.reach("blog")
	inet := nettest.InetAddr4.String()
	r.mustRun("firewall", "add", "shop", "out", "any", inet, "deny")
	r.mustRun("firewall", "add", "--at", "1", "fief0", "out", "deny", blog.Addresses[0].String(), inet)
	r.mustRun("firewall", "del", "fief0", "out", "3")
	r.mustRun("firewall", "del", "blog", "out", "1")
	ns, c := r.netOf(s), r.hold(s.Addresses[0])
	unsaved := []string{
		"fief0 out 1 deny " + blog.Addresses[0].String() + " " + inet + " ", "fief0 out - deny any 203.0.113.2 - /run/t/emperor.ini:9 deleted, unsaved\n",
		"shop eth0 out 1 any " + inet + " deny ", "blog eth0 out - any 203.0.113.0/24 deny - /run/t/vassals/blog.ini:4 deleted, unsaved\n",
	}
	still := func(after string) {
		t.Helper()
		s, blog = r.reach("shop"), r.reach("blog")
		got := r.listed()
		for _, want := range unsaved {
			if !strings.Contains(got, want) {
				t.Errorf("after %s: no %q in\n%s", after, want, got)
			}
		}
		if r.reaches(s) || r.reaches(blog) {
			t.Errorf("after %s a rule is not in force", after)
		}
	}
	for _, it := range []struct {
		after string
		do    func()
	}{{"the router's end", r.killRouter}, {"the emperor's", r.succeed}, {"an upgrade", func() { r.mustRun("upgrade") }}} {
		it.do()
		still(it.after)
		if err := c.try(patience); err != nil {
			t.Errorf("after %s: %v", it.after, err)
		}
		r.sameJail(s, ns)
	}
	// With the vault, all processes go; the rules stay.
	vault := r.vaultPID()
	r.die()
	r.kill(vault)
	r.start()
	still("the emperor's and the vault's end")

	// A file that changed while there was nobody wins.
	r.die()
	r.write(realmDir+"/emperor.ini", chainedNetwork+"tuntap-router-firewall-out = deny any 203.0.113.3\n")
	r.drop("shop", agentIni+"tuntap-device-rule = out any 203.0.113.9 deny\n")
	r.start()
	s, blog = r.reach("shop"), r.reach("blog")
	nettest.Eventually(t, patience, "the files' rules are in force", func() bool { return r.reaches(s) && r.reaches(blog) })
	if got := r.listed("fief0"); strings.Contains(got, "unsaved") || strings.Count(got, "deny any 203") != 3 {
		t.Errorf("the emperor's ini does not win:\n%s", got)
	}
	if got := r.listed("blog"); !strings.Contains(got, unsaved[3]) {
		t.Errorf("an ini that did not change does not keep its vassal's unsaved rules:\n%s", got)
	}
}

// SIGHUP takes an ini with other chains and leaves vassals alone; an ini that is what
// it was reloads all.
func TestChainsByHUP(t *testing.T) {
	t.Parallel()
	for name, vault := range map[string]bool{"by an upgrade": true, "without a vault": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := chainedNetwork
			if !vault {
				open += "emperor-orphans = kill\n"
			}
			chainsByHUP(t, open, vault)
		})
	}
}

func chainsByHUP(t *testing.T, open string, vault bool) {
	r := newRealm(t, open, map[string]string{"shop": agentIni})
	r.inet(nettest.InetAddr4, nil)
	s := r.reach("shop")
	ns, c := r.netOf(s), r.hold(s.Addresses[0])
	r.mustRun("firewall", "add", "fief0", "out", "deny", "any", "203.0.113.77")
	hup := func(ini string) {
		t.Helper()
		r.write(realmDir+"/emperor.ini", ini)
		r.signal(r.cmdPID(), syscall.SIGHUP)
	}
	shut := open + "tuntap-router-firewall-out = deny any " + nettest.InetAddr4.String() + "\n"
	hup(shut)
	nettest.Eventually(t, patience, "the new rule is in force", func() bool {
		out, code := r.run("firewall", "list", "fief0") // nobody answers in the moment of an upgrade
		return code == 0 && strings.Contains(out, "deny any "+nettest.InetAddr4.String())
	})
	if r.reaches(s) || strings.Contains(r.listed("fief0"), "203.0.113.77") {
		t.Errorf("the file does not count:\n%s", r.listed("fief0"))
	}
	if err := c.try(patience); err != nil {
		t.Error(err)
	}
	r.sameJail(s, ns)
	// A bad file is told, its rules are not in force, and nothing is reloaded.
	hup(shut + "tuntap-router-firewall-out = dney any any\n")
	if vault {
		r.logged("not upgraded; going on", 1)
	} else {
		r.logged("the emperor's ini cannot be read again; going on", 1)
	}
	r.sameJail(s, ns)
	if !strings.Contains(r.allLogged(), "dney") {
		t.Error("the log does not say what is wrong")
	}
	if r.reaches(s) {
		t.Error("the rules went with the bad file")
	}
	if out, code := r.run("firewall", "reload"); code != exitFailed || !strings.Contains(out, "emperor.ini:1") || !strings.Contains(out, `unknown action "dney"`) {
		t.Errorf("reload: exit code %d\n%s", code, out)
	}
	r.write(realmDir+"/emperor.ini", shut)
	if vault {
		r.mustRun("upgrade") // to the file that is good again, which is another one
		r.sameJail(s, ns)
	}
	r.signal(r.cmdPID(), syscall.SIGHUP)
	r.await("shop", "is started anew", func(now emperor.Status) bool { return now.State == emperor.Running && now.PID != s.PID })
	if s = r.reach("shop"); r.reaches(s) {
		t.Error("the rules went with the reload")
	}
}
