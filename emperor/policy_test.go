package emperor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// policyOf reads a policy's text.
func policyOf(t *testing.T, text string) (*Policy, error) {
	t.Helper()
	c := &Config{Tyrant: true, PolicyFile: filepath.Join(t.TempDir(), "policy.ini")}
	write(t, c.PolicyFile, text)
	if errs := c.ReadPolicy(twoNetworks()); errs.Failed() {
		return nil, errs
	}
	return c.Policy, nil
}

// underPolicy is an emperor in tyrant mode with a policy.
func underPolicy(t *testing.T, text string) *Emperor {
	t.Helper()
	p, err := policyOf(t, text)
	if err != nil {
		t.Fatal(err)
	}
	e := testEmperor(t, twoNetworks()...)
	e.Config.Tyrant, e.Config.PolicyFile, e.Config.Policy = true, "policy.ini", p
	return e
}

// A file that is not wholly understood bounds nobody as it was meant, so it counts
// as a whole or not at all.
func TestBadPolicies(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":      {"[policy]\npublsh = 80\n", `policy.ini:2: unknown option "publsh"; did you mean "publish"?`},
		"an ini's key":     {"[policy]\ncap = net_raw\n", `policy.ini:2: unknown option "cap"`},
		"unknown section":  {"[polcy]\nvassals = 1\n", "policy.ini:1: [polcy] is no section of a policy; want [policy], [user:NAME] or [group:NAME]"},
		"uwsgi":            {"[uwsgi]\nvassals = 1\n", "[uwsgi] is no section of a policy"},
		"no section":       {"vassals = 1\n[policy]\n", "policy.ini:1: vassals = 1 is in no section"},
		"nobody":           {"[user:]\nvassals = 1\n", "[user:] is no section"},
		"no such user":     {"\n[user:no-such-one]\nvassals = 1\n", `policy.ini:2: no user "no-such-one" on this machine`},
		"no such group":    {"[group:no-such-one]\n", `no group "no-such-one" on this machine`},
		"a user twice":     {"[user:0]\nvassals = 1\n[user:root]\nvassals = 2\n", "policy.ini:3: [user:root] is for whom [user:0] at line 1 is"},
		"number":           {"[policy]\nvassals = many\n", "policy.ini:2: vassals = many: want a number from 0 to"},
		"devices":          {"[policy]\ndevices = 17\n", "want a number from 0 to 16"},
		"empty":            {"[policy]\nnetwork =\n", "policy.ini:2: it is empty; write none"},
		"any among others": {"[policy]\nunshare = pid any\n", "any and none stand alone"},
		"any on a line":    {"[policy]\npublish = 8000\npublish = none\n", "policy.ini:3: publish = none, and "},
		"namespace":        {"[policy]\nunshare = pids\n", `unknown namespace "pids"`},
		"network":          {"[policy]\nnetwork = tun0 nonet\n", "policy.ini:2: no network nonet in the emperor's ini; there are: "},
		"prefix":           {"[policy]\ntuntap-device-address = 10.9.0.1/16\n", "want 10.9.0.0/16"},
		"no prefix":        {"[policy]\ntuntap-device-address = all\n", "neither an address nor a prefix"},
		"vassal's port":    {"[policy]\npublish = 8000:80\n", "write the host's alone"},
		"port":             {"[policy]\npublish = 0\n", "is no port"},
		"pattern":          {"[policy]\nvassal-names = [\n", "is no pattern"},
		"limit":            {"[policy]\nlimit-memory = lots\n", "policy.ini:2: limit-memory = lots: want bytes"},
		"no limit":         {"[policy]\nlimit-memory = none\n", "want a limit, max for none at all"},
		"level":            {"[policy]\nconfine = all\n", "policy.ini:2: confine = all: want strict, default or compat"},
		"no level":         {"[policy]\nconfine = none\n", "takes no owner's app out of all confinement"},
		"place":            {"[policy]\nwritable = srv\n", "policy.ini:2: writable = srv: want an absolute path, such as /srv/{owner}"},
		"behind a link":    {"[policy]\nbind = /proc/self/{owner}:ro\n", "/proc/self is a symbolic link, and nothing behind one can be a place of an ini's; write /proc/"},
		"places and none":  {"[policy]\nwritable = /srv\nwritable = none\n", "any and none stand alone"},
		"listen-ports":     {"[policy]\nlisten-ports = 8000-80\n", `"8000-80" is no port and no range`},
		"too many":         {"[policy]\nlisten-ports = 1-65535\n", "write any for all of them"},
		"a command":        {"[policy]\nvassals = @(exec://echo 3)\n", "a policy is what its file says"},
		"a command's file": {"[policy]\ninclude = exec://echo\n", "is not the name of an ini"},
		"the environment":  {"[policy]\nvassals = $(HOME)\n", "want a number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policyOf(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := policyOf(t, ""); err != nil {
		t.Errorf("an empty policy: %v", err)
	}
}

// A policy is root's word: nobody else can have written it, or put it there.
func TestPolicyIsRoots(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Tyrant: true, PolicyFile: filepath.Join(dir, "policy.ini")}
	if errs := c.ReadPolicy(nil); !errs.Failed() || !strings.Contains(errs.Error(), "no such file") {
		t.Errorf("no file: %v", errs)
	}
	write(t, c.PolicyFile, "[policy]\nvassals = 1\n")
	for name, tt := range map[string]struct {
		file, folder os.FileMode
		want         string
	}{
		"fine":             {0o644, 0o755, ""},
		"root's alone":     {0o600, 0o700, ""},
		"everybody's":      {0o646, 0o755, "others than root may write it (mode 646)"},
		"in a bad folder":  {0o644, 0o757, "its folder " + dir + ": others than root may write it"},
		"in a sticky one":  {0o644, 0o777 | os.ModeSticky, ""},
		"nobody's to read": {0o000, 0o755, ""}, // root reads it
	} {
		for path, mode := range map[string]os.FileMode{c.PolicyFile: tt.file, dir: tt.folder} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		errs := c.ReadPolicy(nil)
		if tt.want == "" && errs.Failed() && os.Geteuid() == 0 || tt.want != "" && !strings.Contains(errs.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, errs, tt.want)
		}
	}
	open := t.TempDir() // where a link leads counts, too
	write(t, filepath.Join(open, "policy.ini"), "")
	if err := errors.Join(os.Chmod(open, 0o757), os.Chmod(dir, 0o755), os.Remove(c.PolicyFile), os.Symlink(filepath.Join(open, "policy.ini"), c.PolicyFile)); err != nil {
		t.Fatal(err)
	}
	if errs := c.ReadPolicy(nil); !errs.Failed() || !strings.Contains(errs.Error(), "its folder "+open) {
		t.Errorf("a link to where everybody may write: %v", errs)
	}
	c.Tyrant = false
	if errs := c.ReadPolicy(nil); !errs.Failed() || !strings.Contains(errs.Error(), "bounds nobody without tyrant mode") {
		t.Errorf("without tyrant mode: %v", errs)
	}
}

// Of each key the most specific section counts that has it, and any takes a bound back.
func TestPolicySections(t *testing.T) {
	e := underPolicy(t, `
[group:1601]
devices = 3
unshare = pid
[user:1500]
devices = 4
publish = any
[policy]
devices = 1
unshare = none
publish = none
vassals = 7
limit-memory = 64M
[group:1602]
unshare = uts
[user:1501]
limit-memory = max
`)
	for who, want := range map[owner]string{
		{1500, 1600}: "devices = 4 in [user:1500], limit-memory = 64M in [policy], unshare = none in [policy], vassals = 7 in [policy]",
		{1500, 1601}: "devices = 4 in [user:1500], limit-memory = 64M in [policy], unshare = pid in [group:1601], vassals = 7 in [policy]",
		{1501, 1602}: "devices = 1 in [policy], limit-memory = max in [user:1501], publish = none in [policy], unshare = uts in [group:1602], vassals = 7 in [policy]",
		{1700, 1700}: "devices = 1 in [policy], limit-memory = 64M in [policy], publish = none in [policy], unshare = none in [policy], vassals = 7 in [policy]",
	} {
		var got []string
		for _, l := range e.Config.Policy.of(who).lines() {
			_, text, _ := strings.Cut(l.String(), ": ")
			got = append(got, text)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%v: %s\nwant %s", who, strings.Join(got, ", "), want)
		}
	}
}

// What an ini asks for beyond the policy is an error at its line, which names the
// policy's line.
func TestBeyondPolicy(t *testing.T) {
	e := underPolicy(t, `[policy]
vassal-names = blog {owner}-*
network = tun0
devices = 1
tuntap-device = web*
tuntap-device-address = 10.9.1.0/24
unshare = pid,fs
publish = 8000-8999
publish = 127.0.0.1:22/tcp
publish = 0.0.0.0:53/udp from 10.0.0.0/8
publish-ports = 3
limit-cpu = 2
limit-memory = 256M
limit-pids = max
confine = default
writable = /srv/{owner}
writable = /var/spool/{owner}-files
bind = /srv/{owner}
bind = /usr/share:ro
rootfs = /srv/{owner}/roots
listen-ports = 22,80-92,8000-8010,9000
`)
	e.Config.Resources = vassal.Resources{CPU: 500, Memory: 64 << 20, PIDs: 100}
	for name, tt := range map[string]struct {
		vassal, text string
		want         string // empty: allowed
	}{
		"nothing":            {"blog", "", ""},
		"his name":           {"1500-shop", "", ""},
		"another's name":     {"1501-shop", "", `the name "1501-shop" is beyond the operator's policy for 1500, POLICY:2: vassal-names = blog {owner}-* in [policy]; stay within it, or ask the operator`},
		"network":            {"blog", "network = tun0", ""},
		"other network":      {"blog", "network = tun1", ":3: network tun1 is beyond the operator's policy for 1500, POLICY:3: network = tun0 in [policy]"},
		"no network":         {"blog", "network = none", ""},
		"its socket":         {"blog", "tuntap-device = web0 /run/tun1", ":3: network tun1 is beyond"},
		"bridge":             {"blog", "network = bridge:br0", ":3: network bridge:br0 is beyond"},
		"devices":            {"blog", "tuntap-device = web0 /run/tun0\ntuntap-device = web1 /run/tun0", ":4: device number 2, web1, is beyond the operator's policy for 1500, POLICY:4: devices = 1"},
		"device's name":      {"blog", "tuntap-device = eth7 /run/tun0", ":3: device eth7 is beyond the operator's policy for 1500, POLICY:5: tuntap-device = web*"},
		"address":            {"blog", "tuntap-device-address = 10.9.1.7", ""},
		"other address":      {"blog", "tuntap-device-address = 10.9.2.7", ":3: address 10.9.2.7 is beyond the operator's policy for 1500, POLICY:6: tuntap-device-address = 10.9.1.0/24"},
		"leased":             {"blog", "network = tun0\ntuntap-device-address = auto", ""},
		"namespaces":         {"blog", "unshare = pid,ns", ""},
		"userns":             {"blog", "unshare = pid,user,ipc", ":3: unshare = ipc,user is beyond the operator's policy for 1500, POLICY:7: unshare = pid,fs"},
		"a range of uids":    {"blog", "userns = auto", ":3: userns = auto, a user namespace, is beyond the operator's policy for 1500, POLICY:7: unshare = pid,fs"},
		"port":               {"blog", "publish = 8000:80", ""},
		"ports":              {"blog", "publish = 8997-8999:80-82", ""},
		"too many ports":     {"blog", "publish = 8000:80\npublish = 8100-8102:90-92", ":4: port number 4, by publish = 8100-8102:90-92/tcp, is beyond the operator's policy for 1500, POLICY:11: publish-ports = 3"},
		"other port":         {"blog", "publish = 9000:80", ":3: publish = 9000:80/tcp is beyond the operator's policy for 1500, POLICY:8: publish = 8000-8999 in [policy], POLICY:9: publish = 127.0.0.1:22/tcp in [policy], POLICY:10: "},
		"a port too many":    {"blog", "publish = 8999-9000:80-81", ":3: publish = 8999-9000:80-81/tcp is beyond"},
		"protocol":           {"blog", "publish = 8000:80/udp", ":3: publish = 8000:80/udp is beyond"},
		"low port":           {"blog", "publish = 127.0.0.1:22:22", ""},
		"low, elsewhere":     {"blog", "publish = 22:22", ":3: publish = 22:22/tcp is beyond"},
		"from there":         {"blog", "publish = 10.1.1.1:53:53/udp from 10.3.0.0/16", ""},
		"from all":           {"blog", "publish = 10.1.1.1:53:53/udp", ":3: publish = 10.1.1.1:53:53/udp is beyond"},
		"from more":          {"blog", "publish = 10.1.1.1:53:53/udp from 10.3.0.0/16,0.0.0.0/0", "is beyond"},
		"of the other kind":  {"blog", "publish = [::]:53:53/udp", "is beyond"},
		"more than all have": {"blog", "limit-cpu = 1.5\nlimit-memory = 256M\nlimit-pids = 5000", ""},
		"cpu":                {"blog", "limit-cpu = 2.5", ":3: limit-cpu = 2.5 is beyond the operator's policy for 1500, POLICY:12: limit-cpu = 2"},
		"strictly":           {"blog", "confine = strict", ""},
		"as all":             {"blog", "confine = default", ""},
		"confined less":      {"blog", "confine = compat", ":3: confine = compat is beyond the operator's policy for 1500, POLICY:15: confine = default in [policy]"},
		"place":              {"blog", "writable = /srv/1500/data", ""},
		"the other place":    {"blog", "writable = /var/spool/1500-files", ""},
		"beside":             {"blog", "writable = /srv/15001", ":3: writable = /srv/15001 is beyond the operator's policy for 1500, POLICY:16: writable = /srv/{owner} in [policy], POLICY:17: writable = /var/spool/{owner}-files"},
		"another's place":    {"blog", "writable = /srv/1501/data", "is beyond"},
		"above":              {"blog", "writable = /srv", "is beyond"},
		"out by dots":        {"blog", "writable = /srv/1500/../1501", ":3: writable = /srv/1501 is beyond"},
		"bind":               {"blog", "bind = /srv/1500/conf:/run/conf", ""},
		"bind to read":       {"blog", "bind = /usr/share/doc:ro", ""},
		"bind to write":      {"blog", "bind = /usr/share/doc", ":3: bind = /usr/share/doc without :ro is beyond the operator's policy for 1500, POLICY:18: bind = /srv/{owner} in [policy], POLICY:19: bind = /usr/share:ro"},
		"another's bind":     {"blog", "bind = /run/postgresql:/srv/1500/db", ":3: bind = /run/postgresql is beyond"},
		"rootfs":             {"blog", "rootfs = /srv/debian", ":3: rootfs = /srv/debian is beyond the operator's policy for 1500, POLICY:20: rootfs = /srv/{owner}/roots"},
		"listen":             {"blog", "listen-ports = 8000,9000", ""},
		"listen elsewhere":   {"blog", "listen-ports = 8000,8011", ":3: listen-ports = 8011 is beyond the operator's policy for 1500, POLICY:21: listen-ports = 22,80-92,8000-8010,9000"},
		"leads elsewhere":    {"blog", "publish = 8000-8001:92-93", ":3: publish = 8000-8001:92-93/tcp, which leads to port 93 of the app's, is beyond the operator's policy for 1500, POLICY:21: listen-ports"},
		"memory":             {"blog", "limit-memory = max", ":3: limit-memory = max is beyond the operator's policy for 1500, POLICY:13: limit-memory = 256M"},
	} {
		t.Run(name, func(t *testing.T) {
			c := goodVassal(t, tt.vassal, tt.text)
			errs := e.judgeTyrant(c, owner{1500, 1600})
			text := strings.ReplaceAll(errs.Error(), e.Config.Policy.files[0], "POLICY")
			if errs.Failed() != (tt.want != "") || !strings.Contains(text, tt.want) {
				t.Fatalf("got %s\nwant %s", text, tt.want)
			}
			if errs.Failed() {
				if _, err := e.resolve(c); err == nil {
					t.Error("it would be started all the same")
				}
			}
		})
	}
}

// An ini that says nothing of a limit has the emperor's, and never more than the policy's.
func TestLimitsUnderPolicy(t *testing.T) {
	e := underPolicy(t, "[policy]\nlimit-cpu = 2\nlimit-memory = 256M\nlimit-pids = 50\n[user:1501]\nlimit-cpu = max\n")
	e.Config.Resources = vassal.Resources{CPU: 500, PIDs: 100}
	for _, tt := range []struct {
		uid  uint32
		text string
		want vassal.Resources
	}{
		{1500, "", vassal.Resources{CPU: 500, Memory: 256 << 20, PIDs: 50}},
		{1500, "limit-cpu = 2\nlimit-memory = 64M", vassal.Resources{CPU: 2000, Memory: 64 << 20, PIDs: 50}},
		{1501, "limit-cpu = max", vassal.Resources{CPU: vassal.Unlimited, Memory: 256 << 20, PIDs: 50}},
	} {
		c := goodVassal(t, "blog", tt.text)
		if errs := e.judgeTyrant(c, owner{tt.uid, 1600}); errs.Failed() {
			t.Fatal(errs)
		}
		defaults, _ := e.boundsOf(c).ceilings(&e.Config.Resources)
		if got := c.Resources.Over(&defaults); !got.Same(&tt.want) {
			t.Errorf("%d %q: %+v, want %+v", tt.uid, tt.text, got, tt.want)
		}
	}
}

// Without a word in the policy all is as in tyrant mode without it.
func TestEmptyPolicyChangesNothing(t *testing.T) {
	e := underPolicy(t, "[policy]\n[user:1500]\n")
	for _, text := range []string{
		"confine = strict", "confine = default", "writable = /srv/blog", "bind = /run/postgresql", "listen-ports = 22",
		"unshare = fs,pid,ipc,uts,net,user", "userns = auto", "publish = 1024:80", "tuntap-device-address = 10.9.0.9", "network = tun0", "network = tun1", "limit-memory = max", "limit-cpu = 64",
	} {
		c := goodVassal(t, "any", text)
		if errs := e.judgeTyrant(c, owner{1500, 1600}); errs.Failed() {
			t.Errorf("%s: %v", text, errs)
		}
	}
	c := goodVassal(t, "low", "publish = 1023:80")
	if errs := e.judgeTyrant(c, owner{1500, 1600}); !errs.Failed() || !strings.Contains(errs.Error(), "a port below 1024") {
		t.Errorf("a low port: %v", errs)
	}
}

// A policy that was not read allows nothing.
func TestUnreadPolicyAllowsNothing(t *testing.T) {
	e := testEmperor(t)
	e.Config.Tyrant, e.Config.PolicyFile = true, "/nowhere"
	if _, err := e.resolve(goodVassal(t, "blog", "")); err == nil || !strings.Contains(err.Error(), "was not read") {
		t.Errorf("%v", err)
	}
}

// Who came first stays, and who goes leaves his place to the next.
func TestPlacesOfAnOwner(t *testing.T) {
	e := underPolicy(t, "[policy]\nvassals = 2\n")
	claim := func(name string, uid uint32) error {
		c := goodVassal(t, name, "")
		if errs := tyrant(c, owner{uid, 1600}); errs.Failed() {
			t.Fatal(errs)
		}
		if errs := e.claimFor(c); errs.Failed() {
			return errs
		}
		return nil
	}
	for _, name := range []string{"a", "b", "a"} {
		if err := claim(name, 1500); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := claim("c", 1500); err == nil || !strings.Contains(err.Error(), "c.ini: vassal number 3 is beyond the operator's policy for 1500") {
		t.Errorf("the third: %v", err)
	}
	if err := claim("c", 1501); err != nil {
		t.Errorf("another's: %v", err)
	}
	e.claims.Remove("a")
	if err := claim("d", 1500); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

// Where names are bounded, nobody takes another's vassal away with an ini of its name
// in a folder that is looked at before.
func TestNobodyTakesAnothersName(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	const his, hers = 61200, 61201
	for folder, uid := range map[string]int{"a": his, "b": hers, "c": his} {
		for _, name := range []string{"61201-shop", "free"} {
			path := filepath.Join(dir, folder, name+".ini")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, "[uwsgi]\n")
			if err := errors.Join(os.Chown(path, uid, uid), os.Chown(filepath.Dir(path), uid, uid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := policyOf(t, "[policy]\nvassal-names = {owner}-* free\n")
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{Tyrant: true, Policy: p, Monitors: []Monitor{{Pattern: dir + "/*/*.ini"}}}
	for name, want := range map[string]string{"61201-shop": "/b/", "free": "/a/"} {
		s := c.scan(nil)
		if got := s.found[name].path; !strings.Contains(got, want) {
			t.Errorf("%s is %s's", name, got)
		}
		if len(s.order) != 2 || len(s.errs) != 4 || !strings.Contains(errors.Join(s.errs...).Error(), `/a/61201-shop.ini: the name "61201-shop" is taken by `+dir+"/b/") {
			t.Errorf("%q, %v", s.order, s.errs)
		}
	}
}
