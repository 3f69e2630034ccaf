package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
)

// twoNetworks have no rules, so a first one stands behind the line that names its
// network.
const twoNetworks = nativeNetwork + `tuntap-router = fief1 /run/fiefdom/emperor/fief1.sock
tuntap-router-address = 10.10.0.1/16
`

const twoComments = "; networks\n; and what they let pass\n"

// lineOf is the number of the only line of the emperor's ini that begins so.
func (r *realm) lineOf(begin string) (line int) {
	r.t.Helper()
	for i, text := range strings.Split(r.read(realmDir+"/emperor.ini"), "\n") {
		if strings.HasPrefix(text, begin) {
			if line != 0 {
				r.t.Fatalf("%q begins lines %d and %d", begin, line, i+1)
			}
			line = i + 1
		}
	}
	return line
}

// wantPlace fails the test unless what has to be written for far's packet stands
// beside a line of the emperor's ini, as the file is by now.
func (r *realm) wantPlace(when, begin string, before bool) {
	r.t.Helper()
	e := r.explain("far", "out", "tcp", "10.77.0.1:80")
	if len(e.Changes) != 1 || e.Changes[0].Line != r.lineOf(begin) || e.Changes[0].Before != before {
		r.t.Errorf("%s explain says to write %+v; %q is line %d", when, e.Changes, begin, r.lineOf(begin))
	}
}

// comment writes lines of somebody's on top of the emperor's ini.
func (r *realm) comment() {
	r.t.Helper()
	r.write(realmDir+"/emperor.ini", strings.Replace(r.read(realmDir+"/emperor.ini"), "[uwsgi]\n", "[uwsgi]\n"+twoComments, 1))
}

// hitsOf are those of the first rule of a network's chain out.
func (r *realm) hitsOf(network string) uint64 {
	r.t.Helper()
	var all []emperor.RuleChain
	if err := json.Unmarshal([]byte(r.mustRun("firewall", "list", "--json", network)), &all); err != nil {
		r.t.Fatal(err)
	}
	if len(all) == 0 || len(all[0].Rules) == 0 || all[0].Rules[0].Hits == nil {
		r.t.Fatalf("nobody counts the rules of %s: %+v", network, all)
	}
	return *all[0].Rules[0].Hits
}

// Where networks and rules stand is known as the file is by now: after lines of
// somebody else's, and after one of our own.
func TestFirewallKnowsWhereNetworksStand(t *testing.T) {
	t.Parallel()
	r := newRealm(t, twoNetworks, map[string]string{
		"near": agentIni, "far": "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0 /run/fiefdom/emperor/fief1.sock\ntuntap-device-address = auto\n",
	})
	r.awaitState("near", emperor.Running)
	far := r.await("far", "runs", func(s emperor.Status) bool { return s.State == emperor.Running })
	const network, rule = "tuntap-router = fief1", "tuntap-router-firewall-out = deny any 203.0.113.2"
	r.wantPlace("at the start", network, false)
	r.comment()
	r.mustRun("firewall", "reload")
	r.wantPlace("after comments on top", network, false)

	r.mustRun("firewall", "add", "--save", "fief0", "out", "deny", "any", "203.0.113.1")
	r.wantPlace("after a rule above it", network, false)
	r.mustRun("firewall", "add", "--save", "fief1", "out", "deny", "any", "203.0.113.2")
	for range 2 {
		_, _ = r.sh(far, "curl -s -m 1 http://203.0.113.2/") // counted, not answered
	}
	hits := r.hitsOf("fief1")
	if hits == 0 {
		t.Fatal("the rule has decided nothing")
	}

	r.mustRun("firewall", "add", "--save", "fief0", "out", "deny", "any", "203.0.113.3")
	if e := r.explain("far", "out", "tcp", "203.0.113.2:80"); e.Rule == nil || e.Rule.Line != r.lineOf(rule) {
		t.Errorf("the rule that decides is %+v, and stands in line %d", e.Rule, r.lineOf(rule))
	}
	r.comment()
	r.mustRun("firewall", "add", "--save", "fief1", "in", "deny", "203.0.113.4", "any")
	r.comment()
	r.mustRun("firewall", "del", "--save", "fief0", "out", "1")
	r.wantPlace("after comments and rules of ours", rule, true)
	want := strings.NewReplacer("[uwsgi]\n", "[uwsgi]\n"+strings.Repeat(twoComments, 3),
		"stats.sock\n", "stats.sock\ntuntap-router-firewall-out = deny any 203.0.113.3\n",
		"fief1.sock\n", "fief1.sock\n"+rule+"\ntuntap-router-firewall-in = deny 203.0.113.4 any\n").Replace(twoNetworks)
	if got := r.read(realmDir + "/emperor.ini"); got != want {
		t.Errorf("the file is\n%swant\n%s", got, want)
	}
	if now := r.hitsOf("fief1"); now != hits {
		t.Errorf("the rule has decided %d packets, and had %d", now, hits)
	}
	r.stop(syscall.SIGTERM)
}
