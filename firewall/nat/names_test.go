package nat

import (
	"strings"
	"testing"
)

func TestChainBase(t *testing.T) {
	tests := []struct{ name, instance, want string }{
		{"plain", "emperor", "fiefdom-emperor"},
		{"all usable characters", "a.B_9-c", "fiefdom-a.B_9-c"},
		{"longest", "123456789012345", "fiefdom-123456789012345"},
		{"too long", "1234567890123456", "fiefdom-123456+7a51d064"},
		{"long, same start", "1234567890123457", "fiefdom-123456+c4867878"},
		{"blank and newline", "a b\n-A", "fiefdom-ab-A+6821fbd4"},
		{"nothing usable", "лен", ""},
		{"what a hashed name looks like", "ab-A+6821fbd4", ""},
	}
	seen := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := chainBase(tt.instance)
			if tt.want != "" && got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if other, ok := seen[got]; ok {
				t.Errorf("%q and %q are both %q", tt.instance, other, got)
			}
			seen[got] = tt.instance
			for _, c := range append(hung(got), chain{name: bucketName(got, maxBuckets-1)}) {
				if len(c.name) > 28 || strings.ContainsFunc(c.name, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("_.-+", r) }) {
					t.Errorf("%q is no name for a chain", c.name)
				}
			}
		})
	}
}

func TestNetworkCheck(t *testing.T) {
	good := network()
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*Network)
		want   string
	}{
		{"no device", func(n *Network) { n.Device = "" }, "device name"},
		{"blank in the device", func(n *Network) { n.Device = "a -j ACCEPT" }, "device name"},
		{"newline in the uplink", func(n *Network) { n.Masquerade = "eth0\nCOMMIT" }, "device name"},
		{"wildcard", func(n *Network) { n.Masquerade = "eth+" }, "device name"},
		{"path", func(n *Network) { n.Device = ".." }, "device name"},
		{"option", func(n *Network) { n.Device = "-j" }, "device name"},
		{"too long", func(n *Network) { n.Device = "a234567890123456" }, "device name"},
		{"out of itself", func(n *Network) { n.Masquerade = "fief0" }, "own device"},
		{"no pool", func(n *Network) { n.Pool = nil }, "no pool"},
		{"IPv4-mapped pool", func(n *Network) { n.Pool = prefixes("::ffff:10.0.0.0/104") }, "not an address range"},
		{"IPv4-mapped gateway", func(n *Network) { n.Gateways = addrs("::ffff:10.0.0.1") }, "not an address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := network()
			tt.change(&n)
			if err := n.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
