package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What cannot be done says why and what to do, and changes nothing: no rule, no file.
func TestFirewallRefuses(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\ntuntap-router-firewall-in = deny 203.0.113.44 any\n"+strings.TrimPrefix(nativeNetwork, "[uwsgi]\n")+
		`bad = 203.0.113.1
tuntap-router-firewall-out = deny any %(bad)
include = /run/t/more.ini
tuntap-router = other0 /run/fiefdom/emperor/other0.sock
tuntap-router-address = 10.10.0.1/16
`)
	r.write(realmDir+"/more.ini", "[uwsgi]\ntuntap-router-firewall-out = deny any 203.0.113.2\n")
	r.drop("shop", agentIni)
	r.drop("fief0", agentIni)
	r.drop("two", "[uwsgi]\ntuntap-device = a0 /run/fiefdom/emperor/fief0.sock\ntuntap-device-address = auto\ntuntap-device = b0 /run/fiefdom/emperor/other0.sock\ntuntap-device-address = auto\ncommand = AGENT\n")
	r.drop("loop", agentIni+"for = 1 2\nenv = A=%(_)\nendfor =\n")
	r.drop("none", "[uwsgi]\nunshare = net\ntuntap-device = eth0\ncommand = AGENT\n")
	r.start()
	for _, name := range []string{"shop", "fief0", "two", "loop"} {
		r.awaitState(name, emperor.Running)
	}
	r.awaitState("none", emperor.Running)
	files := []string{realmDir + "/emperor.ini", realmDir + "/more.ini", iniPath("shop"), iniPath("loop")}
	var before []string
	for _, path := range files {
		before = append(before, r.read(path))
	}
	rules := r.listed()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"add network:fief0 out dney any any", exitUsage, `rule "dney any any": unknown action "dney"; want allow, deny or reject`},
		{"add shop out deny any any", exitUsage, `rule "deny any any"`},
		{"add shop sideways any any deny", exitUsage, "unknown direction"},
		{"add shop out any any", exitUsage, "want in|out SRC DST ACTION"},
		{"add fief0 out deny any any", exitFailed, `"fief0" is a network and a vassal; write network:fief0 or vassal:fief0`},
		{"add nobody out deny any any", exitNotFound, `no network and no vassal "nobody" (networks are: fief0 other0)`},
		{"list nobody", exitNotFound, `no network and no vassal "nobody"`},
		{"add two out any any deny", exitFailed, `vassal "two" has devices a0 and b0; name one by --device`},
		{"add --device c0 two out any any deny", exitFailed, `vassal "two" has no device c0`},
		{"add none out any any deny", exitFailed, `vassal "none" has no device whose packets pass a router`},
		{"add shop out any any route 198.51.100.2:4040", exitFailed, "network fief0 has no UDP gateway"},
		{"add --at 7 other0 out deny any any", exitUsage, "--at 7: there is no rule 7: out has 0"},
		{"add --at 0 other0 out deny any any", exitUsage, "--at 0; want the number of a rule"},
		{"add other0 out", exitUsage, "at least 3 arg"},
		{"del network:fief0 out 9", exitNotFound, "there is no rule 9: out has 2; see fiefdom firewall list"},
		{"del network:fief0 out deny any 203.0.113.9", exitNotFound, `out has no rule "deny any 203.0.113.9" in force`},
		// What cannot be saved as a line.
		{"del --save network:fief0 out 1", exitFailed, "/run/t/emperor.ini: line 9 is not what it was when it was read, or is made of placeholders; change it by hand"},
		{"del --save network:fief0 out 2", exitFailed, "the rule stands at /run/t/more.ini:2, which is not changed, as others may include it; write it by hand: tuntap-router-firewall-out = deny any 203.0.113.2"},
		{"add --save network:fief0 out deny any 203.0.113.3", exitFailed, "the rules beside it stand in files that others may include"},
		{"del --save network:fief0 in 1", exitFailed, "/run/t/emperor.ini would say something else with this line"},
		{"add --save --at 1 network:other0 in deny 203.0.113.3 any", exitFailed, "would say something else with this line"},
		{"add --save loop out any 203.0.113.3 deny", exitFailed, "it has conditions or loops (for)"},
	} {
		if out, code := r.run(append([]string{"firewall"}, strings.Fields(c.args)...)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("firewall %s: exit code %d, want %d with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	for i, path := range files {
		if now := r.read(path); now != before[i] {
			t.Errorf("%s became\n%s", path, now)
		}
	}
	if now := r.listed(); now != rules {
		t.Errorf("the rules became\n%swere\n%s", now, rules)
	}
	// What is said to be written by hand can be had until then.
	r.mustRun("firewall", "add", "network:fief0", "out", "deny", "any", "203.0.113.3")
	r.mustRun("firewall", "add", "--device", "b0", "two", "out", "any", "203.0.113.3", "deny")
	if got := r.listed("two"); !strings.Contains(got, "two a0 out no rules") || !strings.Contains(got, "two b0 out 1 any 203.0.113.3 deny 0 unsaved") {
		t.Errorf("devices:\n%s", got)
	}
	r.mustRun("firewall", "add", "--save", "network:other0", "in", "deny", "203.0.113.3", "any")
	before[0] = strings.Replace(before[0], "other0.sock\n", "other0.sock\ntuntap-router-firewall-in = deny 203.0.113.3 any\n", 1)
	if now := r.read(files[0]); now != before[0] {
		t.Errorf("behind the rules of all networks:\n%s", now)
	}
	// A file that was changed by hand and not read is not written over.
	r.write(realmDir+"/emperor.ini", before[0]+"tuntap-router-firewall-out = deny any 203.0.113.8\n")
	if out, code := r.run("firewall", "add", "--save", "other0", "out", "deny", "any", "203.0.113.9"); code != exitFailed || !strings.Contains(out, "has other rules than those that were read; take them with: fiefdom firewall reload") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// An owner sees the rules of his vassals, and changes none.
func TestFirewallOfAnOwner(t *testing.T) {
	t.Parallel()
	const owner, group = 2001, 2002
	r := layRealm(t, nettest.NewWorld(t), "emperor", chainedNetwork+"emperor-tyrant = true\n")
	r.writeAs(iniPath("blog"), ruledIni, owner, group)
	r.writeAs(iniPath("shop"), ruledIni, owner+1, group)
	r.start()
	r.awaitState("blog", emperor.Running)
	r.awaitState("shop", emperor.Running)
	as := func(args ...string) (string, error) {
		return r.Try(t, "setpriv", append([]string{"--reuid", "2001", "--regid", "2002", "--clear-groups", "fiefdom", "firewall"}, args...)...)
	}
	out, err := as("list")
	if err != nil || !strings.Contains(out, "blog eth0") || strings.Contains(out, "shop") || strings.Contains(out, "fief0") {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, args := range []string{"list shop", "list fief0"} {
		if out, err := as(strings.Fields(args)...); err == nil || !strings.Contains(out, "no network and no vassal") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	for _, args := range []string{"add blog out any any allow", "del blog out 1", "del --save blog out 1", "add fief0 out allow", "add shop in any any deny", "reload"} {
		if out, err := as(strings.Fields(args)...); err == nil || !strings.Contains(out, "only root changes rules") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	// Root may, also into the owner's file, which stays his where only root could have moved it.
	r.mustRun("firewall", "add", "--save", "blog", "out", "any", "203.0.113.9", "deny")
	st, err := os.Stat(r.Path(iniPath("blog")))
	if err != nil || !strings.HasSuffix(r.read(iniPath("blog")), "tuntap-device-rule = out any 203.0.113.9 deny\n") {
		t.Fatal(err, r.read(iniPath("blog")))
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != owner || sys.Gid != group {
		t.Errorf("the file is %d:%d's", sys.Uid, sys.Gid)
	}
	if err := os.Chown(r.Path(realmDir+"/vassals"), owner, group); err != nil {
		t.Fatal(err)
	}
	if out, code := r.run("firewall", "add", "--save", "blog", "out", "any", "203.0.113.10", "deny"); code != exitFailed || !strings.Contains(out, "others than root can write there") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if got := r.listed("blog"); strings.Contains(got, "203.0.113.10") {
		t.Errorf("what could not be saved is in force:\n%s", got)
	}
}
