package emperor

import (
	"fmt"
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

func parseBridges(t *testing.T, lines ...string) (*Config, ini.Errors) {
	t.Helper()
	pairs := []ini.Pair{{Key: "emperor", Value: "/run/t/vassals"}}
	for i, line := range lines {
		key, value, _ := strings.Cut(line, " = ")
		pairs = append(pairs, ini.Pair{Key: key, Value: value, Pos: ini.Pos{File: "emperor.ini", Line: 3 + i}})
	}
	return Parse(&ini.File{Name: "emperor.ini", Pairs: pairs})
}

func TestBridgeOptions(t *testing.T) {
	c, errs := parseBridges(t, "bridge = br0 10.100.0.1/24 fd10::1/64", "bridge-nat = off", "bridge = lan0", "bridge-isolate = off")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var got []string
	for _, b := range c.Bridges {
		got = append(got, fmt.Sprintf("%s %v nat %q isolated %v line %d", b.Device, b.Addresses, b.NAT, b.Isolated, b.Pos.Line))
	}
	want := `br0 [10.100.0.1/24 fd10::1/64] nat "off" isolated true line 3; lan0 [] nat "" isolated false line 5`
	if strings.Join(got, "; ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), want)
	}
	for _, bad := range []struct{ lines, want string }{
		{"bridge = br0\nbridge = br0", "already declared at emperor.ini:3"},
		{"bridge-nat = auto", "write bridge = NAME before it"},
		{"bridge-isolate = off", "write bridge = NAME before it"},
		{"bridge = br0\nbridge-isolate = perhaps", "want on or off"},
		{"bridge = br0\nbridge-nat = a/b", "want off, auto or an interface"},
		{"bridge = br0 10.100.0.0/24", "such as 10.100.0.1"},
		{"bridge = br0 127.0.0.1/8", "cannot be"},
		{"bridge = a/b", "no device name"},
	} {
		if _, errs := parseBridges(t, strings.Split(bad.lines, "\n")...); !errs.Failed() || !strings.Contains(fmt.Sprint(errs), bad.want) {
			t.Errorf("%q: %v, want %q", bad.lines, errs, bad.want)
		}
	}
}

// Only the operator decides which of the host's bridges owners' vassals may be in.
func TestBridgeRights(t *testing.T) {
	c, errs := parseBridges(t, "bridge = lan0")
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ask := func(bridge string) *vassal.Config {
		return &vassal.Config{Name: "blog", Devices: []vassal.DeviceSpec{{Name: "eth0", Bridge: bridge, Auto: true}}}
	}
	for _, tt := range []struct {
		bridge string
		uid    uint32
		tyrant bool
		ok     bool
	}{
		{"lan0", 1000, true, true},
		{"lan0", 1000, false, true},
		{"br0", 0, false, true},
		{"br0", 1000, false, false},
		{"br0", 1000, true, false},
		{"br0", 0, true, false},
	} {
		c.Tyrant = tt.tyrant
		e := &Emperor{Config: c}
		if errs := e.bridgeRights(ask(tt.bridge), owner{uid: tt.uid}); errs.Failed() == tt.ok {
			t.Errorf("bridge %s, uid %d, tyrant %v: %v", tt.bridge, tt.uid, tt.tyrant, errs)
		}
	}
	host := &vassal.Config{Name: "blog", Network: vassal.HostNetwork, NetworkPos: ini.Pos{File: "blog.ini", Line: 2}}
	if errs := tyrant(host, owner{uid: 1000, gid: 1000}); !errs.Failed() || !strings.Contains(fmt.Sprint(errs), "blog.ini:2: network = host is not allowed") {
		t.Errorf("network = host in tyrant mode: %v", errs)
	}
}
