package main

import (
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// Changes follow each other as they are asked for, whatever the one before did to
// the ini.
func TestRuleChangesInARow(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"shop": agentIni,
		"two":  "[uwsgi]\ntuntap-device = a0 /run/fiefdom/emperor/fief0.sock\ntuntap-device-address = auto\ntuntap-device = b0 /run/fiefdom/emperor/fief0.sock\ntuntap-device-address = auto\ncommand = AGENT\n",
	})
	r.awaitState("shop", emperor.Running)
	r.awaitState("two", emperor.Running)
	before := r.read(iniPath("shop"))
	r.mustRun("firewall", "add", "shop", "out", "any", "203.0.113.1", "deny")
	r.mustRun("firewall", "del", "--save", "shop", "out", "1") // which is in no file
	r.mustRun("firewall", "add", "shop", "out", "any", "203.0.113.2", "deny")
	r.wantListed("\nshop eth0 out 1 any 203.0.113.2 deny 0 unsaved\nshop eth0 in no rules\n", "shop")
	if now := r.read(iniPath("shop")); now != before {
		t.Errorf("the ini was changed:\n%s", now)
	}
	r.mustRun("firewall", "add", "--save", "--at", "1", "shop", "out", "any", "203.0.113.3", "deny")
	r.mustRun("firewall", "add", "shop", "out", "any", "203.0.113.4", "deny")
	r.mustRun("firewall", "del", "--save", "shop", "out", "1")
	r.wantListed("\nshop eth0 out 1 any 203.0.113.2 deny 0 unsaved\nshop eth0 out 2 any 203.0.113.4 deny 0 unsaved\nshop eth0 in no rules\n", "shop")

	// Each line moves those of the other device.
	for _, dev := range []string{"b0", "a0", "b0", "a0"} {
		r.mustRun("firewall", "add", "--save", "--device", dev, "two", "out", "any", "203.0.113.9", "deny")
	}
	if got := r.listed("two"); strings.Count(got, "vassals/two.ini:") != 4 || strings.Contains(got, "unsaved") {
		t.Errorf("%s\n%s", got, r.read(iniPath("two")))
	}
}

// A saved line by which the ini cannot be read is told of, is in force, and holds up
// no other change.
func TestRuleSavedIntoAnIniThatTurnsBad(t *testing.T) {
	t.Parallel()
	const most = 3000 // lines of an ini
	full := agentIni + strings.Repeat("env = A=1\n", most-strings.Count(agentIni, "\n")+1)
	r := newRealm(t, nativeNetwork, map[string]string{"shop": full})
	r.inet(nettest.InetAddr4, nil)
	s := r.reach("shop")
	ns, inet := r.netOf(s), nettest.InetAddr4.String()
	out := r.mustRun("firewall", "add", "--save", "shop", "out", "any", inet, "deny")
	if !strings.Contains(out, "the ini is bad now, and does not count until it is mended: ") || !strings.Contains(out, "more than 3000") || !strings.Contains(out, "written to /run/t/vassals/shop.ini:") {
		t.Errorf("add --save says:\n%s", out)
	}
	r.mustRun("firewall", "add", "shop", "out", "any", "203.0.113.9", "deny")
	if got := r.listed("shop"); !strings.Contains(got, "shop eth0 out 1 any "+inet+" deny 0 /run/t/vassals/shop.ini:") || !strings.Contains(got, "shop eth0 out 2 any 203.0.113.9 deny 0 unsaved") || r.reaches(s) {
		t.Errorf("it is not in force:\n%s", got)
	}
	// Mended, it says what was saved, and what is unsaved stays.
	r.write(iniPath("shop"), strings.Replace(r.read(iniPath("shop")), "env = A=1\n", "", 1))
	r.await("shop", "runs with a good ini", func(now emperor.Status) bool {
		return now.State == emperor.Running && now.Error == "" && now.PID != s.PID
	})
	s = r.reach("shop")
	if got := r.listed("shop"); !strings.Contains(got, "deny 0 unsaved") || r.reaches(s) {
		t.Errorf("a mended ini makes of it:\n%s", got)
	}
	if now := r.netOf(s); now != ns {
		t.Errorf("the jail was %s and is %s", ns, now)
	}
}
