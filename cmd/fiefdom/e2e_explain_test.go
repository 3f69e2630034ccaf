package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

const walledNetwork = nativeNetwork + `tuntap-router-firewall-out = allow any 10.9.0.1
tuntap-router-firewall-out = allow any any tcp 8000
tuntap-router-firewall-out = deny any 203.0.113.0/24
tuntap-router-firewall-in = deny any any tcp 23
`

func (r *realm) explain(args ...string) (e tuntap.Explanation) {
	r.t.Helper()
	out := r.mustRun(append([]string{"explain", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return e
}

// A hoster asks why a packet does not get there, writes the line that he is
// told, and it does.
func TestExplainAndMend(t *testing.T) {
	t.Parallel()
	r := newRealm(t, walledNetwork, map[string]string{
		"blog": "[uwsgi]\ncommand = AGENT\n",
		"shop": "[uwsgi]\ntuntap-device-address = 10.9.0.77\ntuntap-device-rule = in 10.9.0.0/16 10.9.0.77 deny\ncommand = AGENT\n",
	})
	blog := r.reach("blog")
	r.awaitState("shop", emperor.Running)
	const to = "10.9.0.77:8000"
	reaches := func() bool {
		_, err := r.sh(blog, "curl -sf -m 1 http://"+to+"/")
		return err == nil
	}
	if reaches() {
		t.Fatal("a rule that denies does nothing")
	}
	text := r.mustRun("explain", "blog", "out", "tcp", to)
	for _, want := range []string{
		fmt.Sprintf("blog out tcp, %s -> %s: DENY, by %s:3 \"deny 10.9.0.0/16 10.9.0.77\"", blog.Addresses[0], to, iniPath("shop")),
		"1 no", "destination is 10.9.0.77", "2 hit", "rules in of shop", "before " + iniPath("shop") + ":3:\n  tuntap-device-rule = in ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	e := r.explain("blog", "out", "tcp", to)
	if e.Verdict != "deny" || e.Rule == nil || e.Rule.Line != 3 || len(e.Changes) != 1 {
		t.Fatalf("%+v", e)
	}
	r.insert(e.Changes[0])
	nettest.Eventually(t, patience, "the line helps", reaches)
	if e := r.explain("blog", "out", "tcp", to); e.Verdict != "allow" || e.To != "vassal shop" {
		t.Errorf("%+v", e)
	}
	if e := r.explain("shop", "in", "tcp", netip.AddrPortFrom(blog.Addresses[0], 23).String()); e.Verdict != "deny" || e.Reason != "isolate" {
		t.Errorf("%+v", e)
	}
	if e := r.explain("shop", "in", "tcp", "198.51.100.2:23"); e.Verdict != "deny" || e.Rule == nil || e.Rule.Line != 10 {
		t.Errorf("%+v", e)
	}
	r.stop(syscall.SIGTERM)
}

// The drops that happened are told with the lines that made them.
func TestExplainLastDrops(t *testing.T) {
	t.Parallel()
	r := newRealm(t, walledNetwork, map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	if _, err := r.sh(blog, "curl -sf -m 0.3 http://203.0.113.9/"); err == nil {
		t.Fatal("a rule that denies does nothing")
	}
	if _, err := r.sh(blog, "curl -sf -m 0.3 http://192.168.7.7/"); err == nil {
		t.Fatal("nothing isolates")
	}
	text := r.mustRun("explain", "--last-drops", "blog")
	for _, want := range []string{
		`/run/t/emperor.ini:9 "deny any 203.0.113.0/24"`, fmt.Sprintf("out tcp %s -> 203.0.113.9:80", blog.Addresses[0]),
		"isolate", fmt.Sprintf("out tcp %s -> 192.168.7.7:80", blog.Addresses[0]),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	var drops []tuntap.PeerDrops
	if err := json.Unmarshal([]byte(r.mustRun("explain", "--json", "--last-drops", "blog")), &drops); err != nil || len(drops) != 1 || len(drops[0].Drops) != 2 {
		t.Errorf("%+v, %v", drops, err)
	}
	if out := r.mustRun("explain", "blog", "out", "tcp", "203.0.113.9:80"); !strings.Contains(out, "last seen: ") {
		t.Errorf("it does not tell of those that happened:\n%s", out)
	}
	if out, code := r.run("explain", "--last-drops", "nobody"); code != exitNotFound {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// insert writes a line that explain told.
func (r *realm) insert(c tuntap.Change) {
	r.t.Helper()
	lines := strings.Split(r.read(c.File), "\n")
	at := c.Line
	if c.Before {
		at--
	}
	lines = append(lines[:at:at], append([]string{c.Text}, lines[at:]...)...)
	r.write(c.File, strings.Join(lines, "\n"))
}

func TestExplainExitCodes(t *testing.T) {
	t.Parallel()
	r := newRealm(t, walledNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"blog out tcp 198.51.100.2", exitUsage, "tcp needs the port"},
		{"blog out tpc 198.51.100.2:80", exitUsage, "unknown protocol"},
		{"blog sideways tcp 198.51.100.2:80", exitUsage, "unknown direction"},
		{"blog out icmp 198.51.100.2:80", exitUsage, "icmp has no ports"},
		{"nobody out tcp 198.51.100.2:80", exitNotFound, "no vassal"},
		{"blog out tcp [fd09::1]:80", exitFailed, "no address of the family"},
		{"blog out tcp 198.51.100.2:80", exitOK, "ALLOW, to the host"},
		{"blog out icmp 10.9.0.1", exitOK, "ALLOW, by /run/t/emperor.ini:7"},
		{"blog out tcp 198.51.100.2:80 --from 10.9.0.99", exitOK, "DENY (spoofed)"},
		{"blog out tcp 10.9.44.44:8000", exitOK, "REJECT (no-route)"},
		{"blog out tcp 203.0.113.9:443", exitOK, `DENY, by /run/t/emperor.ini:9 "deny any 203.0.113.0/24"`},
	} {
		out, code := r.run(append([]string{"explain"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("explain %s: exit code %d, want %d with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
}

// An owner sees his own vassals' rules, and of the emperor's the one that decides.
func TestExplainToAnOwner(t *testing.T) {
	t.Parallel()
	const owner, group = 2001, 2002
	r := layRealm(t, nettest.NewWorld(t), "emperor", walledNetwork+"emperor-tyrant = true\n")
	r.writeAs(iniPath("blog"), agentIni, owner, group)
	r.writeAs(iniPath("shop"), "[uwsgi]\ntuntap-device-address = 10.9.0.77\ntuntap-device-rule = in 10.9.0.0/16 10.9.0.77 deny\ncommand = AGENT\n", owner+1, group)
	r.start()
	r.reach("blog")
	r.awaitState("shop", emperor.Running)
	as := func(args ...string) (string, error) {
		return r.Try(t, "setpriv", append([]string{"--reuid", "2001", "--regid", "2002", "--clear-groups", "fiefdom"}, args...)...)
	}
	out, err := as("explain", "blog", "out", "tcp", "10.9.0.77:8000")
	if err != nil || !strings.Contains(out, "DENY (rule)") || strings.Contains(out, "shop") || strings.Contains(out, "deny 10.9.0.0/16") || strings.Contains(out, "no    allow") {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := as("explain", "blog", "in", "tcp", "10.9.0.77:8000"); err != nil || strings.Contains(out, "shop") {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := as("explain", "--last-drops", "blog"); err != nil || strings.Contains(out, "shop") {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := as("explain", "shop", "out", "tcp", "198.51.100.2:80"); err == nil {
		t.Errorf("he sees another's vassal:\n%s", out)
	}
}
