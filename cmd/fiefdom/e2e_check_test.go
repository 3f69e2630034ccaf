package main

import (
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// A pool that this host uses already is told of by check; the emperor's own
// device, while he runs, is not.
func TestCheckPoolsAgainstTheHost(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.write("/run/t/clash.ini", strings.Replace(nativeNetwork, "10.9.0.1/16", "198.51.100.65/26", 1))
	out, code := r.run("check", "/run/t/clash.ini")
	if want := "/run/t/clash.ini:3: pool 198.51.100.64/26 overlaps the host's network 198.51.100.0/24 on "; code != exitOK || !strings.Contains(out, want) || !strings.Contains(out, "(warning)") {
		t.Errorf("exit code %d, want %q:\n%s", code, want, out)
	}
	r.drop("blog", agentIni)
	r.start()
	r.reach("blog")
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitOK || out != "" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// A bridge that nobody would make, and addresses to publish at that the host has not,
// are told of by check; they may come later.
func TestCheckWhatTheHostLacks(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"bridge = lan1 10.101.0.1/24\n")
	r.Run(t, "sh", "-ec", "ip link add lan0 type bridge; ip link add any0 type veth peer name any1")
	vassals := map[string]string{
		"there":    "network = bridge:lan0",
		"declared": "network = bridge:lan1\npublish = 10.101.0.1:8001:80",
		"made":     "network = bridge:br0 10.100.0.1/24\npublish = 10.100.0.1:8002:80",
		"beside":   "network = bridge:br0\npublish = 198.51.100.1:8003:80\npublish = 127.0.0.1:8004:80\npublish = 0.0.0.0:8005:80",
		"lost":     "network = bridge:br9",
		"loop":     "network = bridge:any0",
		"away":     "tuntap-device-address = auto\npublish = 203.0.113.77:8006:80\npublish = 10.9.0.1:8007:80",
	}
	for name, lines := range vassals {
		r.drop(name, "[uwsgi]\ncommand = AGENT\n"+lines+"\n")
	}
	out, code := r.run("check", "/run/t/emperor.ini")
	for _, want := range []string{
		"lost.ini:3: this host has no bridge br9, and no ini gives it an address to have it made",
		"loop.ini:3: device any0 of this host is no bridge (veth)",
		"away.ini:4: publish = 203.0.113.77:8006:80/tcp: no device of this host has the address 203.0.113.77 now",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}
	if n := strings.Count(out, "(warning)"); n != 3 || code != exitOK {
		t.Errorf("exit code %d, %d warnings:\n%s", code, n, out)
	}
}
