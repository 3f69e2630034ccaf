package emperor

import (
	"net/netip"
	"strings"
	"testing"
)

func TestRoutesOfDeviceRules(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want string // of the error; empty: none
	}{
		"a far end":     {"tuntap-device = a /run/tun0\ntuntap-device-rule = out any any route 198.51.100.2:4040", ""},
		"no gateway":    {"tuntap-device = a /run/tun1\ntuntap-device-rule = out any any route 198.51.100.2:4040", "network tun1 has no UDP gateway to route packets by"},
		"a tenant's":    {"tuntap-device = a /run/tun0\ntuntap-device-rule = out any any gateway 198.51.100.2:22", "198.51.100.2:22 is no far end of network tun0 (they are: 198.51.100.2:4040)"},
		"the host":      {"tuntap-device = a /run/tun0\ntuntap-device-rule = out any any gateway 127.0.0.1:4040", "127.0.0.1:4040 is no far end"},
		"none at all":   {"tuntap-device = a /run/tun2\ntuntap-device-rule = out any any route 198.51.100.2:4040", "(it has none)"},
		"device only":   {"tuntap-device = a\ntuntap-device-rule = out any any route 198.51.100.2:4040", "device a joins no router"},
		"by its lease":  {"tuntap-device-address = 10.9.0.7\ntuntap-device-rule = out any any route 198.51.100.2:4040", ""},
		"foreign":       {"tuntap-device = a /run/none\ntuntap-device-rule = out any any route 127.0.0.1:4040", ""},
		"only firewall": {"tuntap-device = a /run/tun1\ntuntap-device-rule = out any any deny", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t,
				Network{Device: "tun0", Socket: "/run/tun0", Addresses: []netip.Prefix{prefix("10.9.0.1/24")}, Gateway: true, FarEnds: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.2:4040")}},
				Network{Device: "tun1", Socket: "/run/tun1"}, Network{Device: "tun2", Socket: "/run/tun2", Gateway: true})
			_, bad := e.resolve(goodVassal(t, "blog", tc.text))
			if tc.want == "" {
				if bad != nil {
					t.Error(*bad)
				}
				return
			}
			if bad == nil || bad.Pos.Line != 4 || !strings.Contains(bad.Message, tc.want) {
				t.Errorf("got %v; want line 4, %q", bad, tc.want)
			}
		})
	}
}
