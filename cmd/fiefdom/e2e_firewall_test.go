package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// chainedNetwork has a chain with rules, comments and odd blanks.
const chainedNetwork = nativeNetwork + `; what apps may reach
tuntap-router-firewall-out = deny any 203.0.113.1
  tuntap-router-firewall-out=deny   any 203.0.113.2   ` + `
; the end
`

// listed is what fiefdom firewall list prints, without its head and blanks.
func (r *realm) listed(args ...string) string {
	r.t.Helper()
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(r.mustRun(append([]string{"firewall", "list"}, args...)...)), "\n") {
		if i > 0 {
			b.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
	}
	return b.String()
}

func (r *realm) wantListed(want string, args ...string) {
	r.t.Helper()
	if got := r.listed(args...); got != strings.TrimLeft(want, "\n") {
		r.t.Errorf("firewall list %v:\n%swant%s", args, got, want)
	}
}

func TestFirewallAtRunTime(t *testing.T) {
	t.Parallel()
	r := newRealm(t, chainedNetwork, map[string]string{"shop": agentIni, "blog": agentIni})
	r.inet(nettest.InetAddr4, nil)
	s, blog := r.reach("shop"), r.reach("blog")
	ns, c := r.netOf(s), r.hold(s.Addresses[0])
	ini, shop := r.read(realmDir+"/emperor.ini"), r.read(iniPath("shop"))
	inet := nettest.InetAddr4.String()

	out := r.mustRun("firewall", "add", "fief0", "out", "deny", "any", inet, "tcp", "80")
	if !strings.Contains(out, "fief0 out, rule 3 added: deny any "+inet+" tcp 80\nunsaved: ") {
		t.Errorf("add says:\n%s", out)
	}
	if r.reaches(s) || r.reaches(blog) {
		t.Error("the rule is not in force")
	}
	r.mustRun("firewall", "add", "--at", "1", "fief0", "out", "allow", s.Addresses[0].String(), inet)
	if !r.reaches(s) || r.reaches(blog) {
		t.Error("the rule before it is not")
	}
	r.mustRun("firewall", "del", "fief0", "out", "deny", "any", "203.0.113.2")
	r.mustRun("firewall", "add", "shop", "in", "203.0.113.0/24", "any", "deny")
	all := r.listed("fief0")
	for _, want := range []string{
		"fief0 out 1 allow " + s.Addresses[0].String() + " " + inet + " ", "fief0 out 2 deny any 203.0.113.1 0 /run/t/emperor.ini:8\n",
		"fief0 out - deny any 203.0.113.2 - /run/t/emperor.ini:9 deleted, unsaved\n", "fief0 out 3 deny any " + inet + " tcp 80 ", "fief0 out isolate\nfief0 in no rules\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	r.wantListed("\nshop eth0 out no rules\nshop eth0 in 1 203.0.113.0/24 any deny 0 unsaved\n", "shop")
	if err := c.try(patience); err != nil {
		t.Error(err)
	}
	r.sameJail(s, ns)
	if r.read(realmDir+"/emperor.ini") != ini || r.read(iniPath("shop")) != shop {
		t.Error("a file was changed")
	}

	// Hits, and what a rule is shadowed by.
	var chains []emperor.RuleChain
	if err := json.Unmarshal([]byte(r.mustRun("firewall", "list", "--json", "fief0")), &chains); err != nil {
		t.Fatal(err)
	}
	if rules := chains[0].Rules; len(rules) != 4 || rules[0].Hits == nil || *rules[0].Hits == 0 || *rules[3].Hits == 0 || rules[0].Unsaved != "added" || rules[2].Number != 0 {
		t.Errorf("counted %+v", rules)
	}
	if out := r.mustRun("firewall", "add", "fief0", "out", "allow", "10.9.0.0/16", inet, "tcp", "80"); !strings.Contains(out, "this rule never matches: unsaved \"deny any "+inet+" tcp 80\" comes first (warning)") {
		t.Errorf("a shadowed rule is not told of:\n%s", out)
	}
	if out := r.mustRun("explain", "blog", "out", "tcp", inet+":80"); !strings.Contains(out, "by unsaved \"deny any "+inet+" tcp 80\"") ||
		!strings.Contains(out, "to allow it, write it before the unsaved rule 3, by fiefdom firewall add --at 3:\n  tuntap-router-firewall-out = allow "+blog.Addresses[0].String()) {
		t.Errorf("explain:\n%s", out)
	}

	// The file wins.
	r.mustRun("firewall", "reload")
	r.wantListed("\nfief0 out 1 deny any 203.0.113.1 0 /run/t/emperor.ini:8\nfief0 out 2 deny any 203.0.113.2 0 /run/t/emperor.ini:9\nfief0 out isolate\nfief0 in no rules\n", "fief0")
	if !r.reaches(blog) {
		t.Error("unsaved rules are still in force")
	}
	if events := r.mustRun("events", "--since", "1h"); strings.Count(events, "unsaved change of a rule is gone") != 4 || strings.Count(events, "rule added") != 4 || !strings.Contains(events, "rule deleted") {
		t.Errorf("events:\n%s", events)
	}
	r.drop("shop", shop+"tuntap-device-rule = out any 203.0.113.9 deny\n")
	nettest.Eventually(t, patience, "the ini's rule alone is in force", func() bool {
		return r.listed("shop") == "shop eth0 out 1 any 203.0.113.9 deny 0 /run/t/vassals/shop.ini:3\nshop eth0 in no rules\n"
	})
	r.sameJail(s, ns)
	if err := c.try(patience); err != nil {
		t.Error(err)
	}
}

func TestFirewallSaves(t *testing.T) {
	t.Parallel()
	r := newRealm(t, chainedNetwork, map[string]string{"shop": agentIni + "; the end"})
	s := r.reach("shop")
	ns, c := r.netOf(s), r.hold(s.Addresses[0])
	path := r.Path(realmDir + "/emperor.ini")
	if err := os.Chown(path, 0, 77); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	r.mustRun("firewall", "add", "fief0", "out", "deny", "any", "203.0.113.50") // stays unsaved
	out := r.mustRun("firewall", "add", "--save", "fief0", "out", "reject", "any", "203.0.113.3", "tcp", "22,80")
	if !strings.Contains(out, "rule 4 added: reject any 203.0.113.3 tcp 22,80\nwritten to /run/t/emperor.ini:10\n") {
		t.Errorf("add --save says:\n%s", out)
	}
	r.mustRun("firewall", "add", "--save", "--at", "1", "fief0", "out", "allow", "any", "203.0.113.4")
	r.mustRun("firewall", "add", "--save", "fief0", "in", "deny", "203.0.113.5", "any")
	r.mustRun("firewall", "del", "--save", "fief0", "out", "deny any 203.0.113.1")
	want := nativeNetwork + `; what apps may reach
tuntap-router-firewall-out = allow any 203.0.113.4
  tuntap-router-firewall-out=deny   any 203.0.113.2   ` + `
tuntap-router-firewall-out = reject any 203.0.113.3 tcp 22,80
tuntap-router-firewall-in = deny 203.0.113.5 any
; the end
`
	if got := r.read(realmDir + "/emperor.ini"); got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 || st.Sys().(*syscall.Stat_t).Gid != 77 {
		t.Errorf("%v, mode %v, %+v", err, st.Mode(), st.Sys())
	}
	r.wantListed(`
fief0 out 1 allow any 203.0.113.4 0 /run/t/emperor.ini:8
fief0 out 2 deny any 203.0.113.2 0 /run/t/emperor.ini:9
fief0 out 3 deny any 203.0.113.50 0 unsaved
fief0 out 4 reject any 203.0.113.3 tcp 22,80 0 /run/t/emperor.ini:10
fief0 out isolate
fief0 in 1 deny 203.0.113.5 any 0 /run/t/emperor.ini:11
`, "fief0")

	r.mustRun("firewall", "add", "shop", "out", "any", "203.0.113.60", "deny") // unsaved
	r.mustRun("firewall", "add", "--save", "shop", "out", "any", "203.0.113.6", "deny")
	r.mustRun("firewall", "add", "--save", "--at", "2", "shop", "out", "any", "203.0.113.7", "deny")
	settled := "shop eth0 out 1 any 203.0.113.60 deny 0 unsaved\nshop eth0 out 2 any 203.0.113.7 deny 0 /run/t/vassals/shop.ini:4\n" +
		"shop eth0 out 3 any 203.0.113.6 deny 0 /run/t/vassals/shop.ini:5\nshop eth0 in no rules\n"
	nettest.Eventually(t, patience, "the vassal's rules are "+settled, func() bool { return r.listed("shop") == settled })
	if got := r.read(iniPath("shop")); !strings.HasSuffix(got, "\n; the end\ntuntap-device-rule = out any 203.0.113.7 deny\ntuntap-device-rule = out any 203.0.113.6 deny") {
		t.Errorf("the vassal's file is\n%s", got)
	}
	r.mustRun("firewall", "del", "--save", "shop", "out", "2")
	nettest.Eventually(t, patience, "the saved rule is gone", func() bool {
		return !strings.Contains(r.read(iniPath("shop")), "203.0.113.7") && strings.Count(r.listed("shop"), "203.0.113.6") == 2
	})
	// What was tried is kept: a rule that was added, and one that was deleted.
	if out := r.mustRun("firewall", "add", "--save", "shop", "out", "any", "203.0.113.60", "deny"); !strings.Contains(out, "rule 1 added: any 203.0.113.60 deny\nwritten to /run/t/vassals/shop.ini:4\n") {
		t.Errorf("a rule that was tried is saved:\n%s", out)
	}
	r.mustRun("firewall", "del", "fief0", "out", "deny any 203.0.113.2")
	if out := r.mustRun("firewall", "del", "--save", "fief0", "out", "deny any 203.0.113.2"); !strings.Contains(out, "rule deleted: deny any 203.0.113.2\nand its line, /run/t/emperor.ini:9\n") {
		t.Errorf("a deletion that was tried is saved:\n%s", out)
	}
	if got := r.listed("fief0"); strings.Contains(got, "203.0.113.2 ") || strings.Contains(r.read(realmDir+"/emperor.ini"), "203.0.113.2 ") || !strings.Contains(got, "203.0.113.50 0 unsaved") {
		t.Errorf("after a saved deletion:\n%s", got)
	}
	nettest.Eventually(t, patience, "the rule is the file's", func() bool {
		return strings.Contains(r.listed("shop"), "shop eth0 out 1 any 203.0.113.60 deny 0 /run/t/vassals/shop.ini:4\nshop eth0 out 2 any 203.0.113.6 deny ")
	})
	if err := c.try(patience); err != nil {
		t.Error(err)
	}
	r.sameJail(s, ns)
	// The files say what was in force.
	r.mustRun("check", realmDir+"/emperor.ini")
	r.stop(syscall.SIGTERM)
	r.start()
	r.reach("shop")
	if got := r.listed("fief0"); strings.Contains(got, "203.0.113.50") || !strings.Contains(got, "203.0.113.3 tcp 22,80") {
		t.Errorf("after a new start:\n%s", got)
	}
}
