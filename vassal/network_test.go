package vassal

import (
	"fmt"
	"strings"
	"testing"

	"fiefdom/internal/ini"
)

func parseLines(t *testing.T, lines ...string) (*Config, ini.Errors) {
	t.Helper()
	pairs := []ini.Pair{{Key: "command", Value: "true", Pos: ini.Pos{File: "blog.ini", Line: 2}}}
	for i, line := range lines {
		key, value, _ := strings.Cut(line, " = ")
		pairs = append(pairs, ini.Pair{Key: key, Value: value, Pos: ini.Pos{File: "blog.ini", Line: 3 + i}})
	}
	return Parse("blog", &ini.File{Name: "blog.ini", Pairs: pairs})
}

func TestNetworkMakesADeviceInEach(t *testing.T) {
	tests := []struct{ lines, want string }{
		{"network = fief0", "eth0 in fief0 auto []"},
		{"network = fief0 back0", "eth0 in fief0 auto [], eth1 in back0 auto []"},
		{"network = fief0\nnetwork = back0", "eth0 in fief0 auto [], eth1 in back0 auto []"},
		{"network = fief0\ntuntap-device-address = 10.9.0.7\nnetwork = back0", "eth0 in fief0 fixed [10.9.0.7], eth1 in back0 auto []"},
		{"tuntap-device-mtu = 1400\nnetwork = fief0", "eth0 in fief0 auto []"},
		{"tuntap-device = eth0 /run/a.sock\nnetwork = fief0", "eth0 in /run/a.sock fixed [], eth1 in fief0 auto []"},
		{"network = bridge:br0", "eth0 in bridge br0 auto []"},
		{"network = bridge:br0 10.100.0.1/24", "eth0 in bridge br0 [10.100.0.1/24] auto []"},
		{"network = bridge:br0 10.100.0.1/24\ntuntap-device-address = 10.100.0.2", "eth0 in bridge br0 [10.100.0.1/24] fixed [10.100.0.2]"},
	}
	for _, tt := range tests {
		c, errs := parseLines(t, strings.Split(tt.lines, "\n")...)
		if len(errs) > 0 {
			t.Errorf("%q: %v", tt.lines, errs)
			continue
		}
		var got []string
		for _, d := range c.Devices {
			place := d.Socket + d.Network
			if d.Bridge != "" {
				place = "bridge " + d.Bridge
			}
			if len(d.BridgeAddresses) > 0 {
				place += " " + fmt.Sprint(d.BridgeAddresses)
			}
			how := "fixed"
			if d.Auto {
				how = "auto"
			}
			got = append(got, fmt.Sprintf("%s in %s %s %v", d.Name, place, how, d.Addresses))
		}
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("%q makes\n%s, want\n%s", tt.lines, strings.Join(got, ", "), tt.want)
		}
	}
}

func TestNetworkThatCannotBe(t *testing.T) {
	tests := []struct{ lines, want string }{
		{"network = none fief0", "stands alone"},
		{"network = none\nnetwork = host", "stands alone"},
		{"network = none\ntuntap-device = eth0", "leave one of them out"},
		{"network = host\nnetwork = fief0", "leave one of them out"},
		{"network = fief0 fief0", "named twice"},
		{"network = fief0 bridge:br0", "on a line of its own"},
		{"network = bridge:", "no device name"},
		{"network = bridge:br0 10.100.0.0/24", "such as 10.100.0.1"},
		{"network = bridge:br0 10.100.0.1", "such as 10.100.0.1/24"},
		{"network = bridge:br0 10.100.0.1/31", "no address for a vassal"},
		{"network = bridge:br0\nnetwork = bridge:br0", "named twice"},
		{"network = bridge:br0\ntuntap-device-rule = out 10.100.0.2 198.51.100.2 deny", "are the router's"},
	}
	for _, tt := range tests {
		_, errs := parseLines(t, strings.Split(tt.lines, "\n")...)
		if !errs.Failed() || !strings.Contains(fmt.Sprint(errs), tt.want) {
			t.Errorf("%q: %v, want an error with %q", tt.lines, errs, tt.want)
		}
	}
}
