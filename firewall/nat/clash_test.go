package nat

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

func TestClash(t *testing.T) {
	ns := nettest.NewNS(t)
	for _, cmd := range []string{
		"ip tuntap add dev lan0 mode tun", "ip addr add 192.168.1.5/24 dev lan0", "ip link set lan0 up",
		"ip tuntap add dev vpn0 mode tun", "ip addr add 10.64.0.2/32 dev vpn0", "ip addr add fd00:5::1/64 dev vpn0", "ip link set vpn0 up",
		"ip route add 10.9.0.0/17 dev vpn0", "ip route add 10.10.0.0/15 dev vpn0",
		"ip route add default dev vpn0", "ip route add 0.0.0.0/1 dev vpn0", "ip -6 route add default dev vpn0", "ip -6 route add 2000::/3 dev vpn0",
		"ip route add blackhole 172.16.0.0/12",
		"ip tuntap add dev fief0 mode tun", "ip addr add 10.200.0.1/16 dev fief0", "ip link set fief0 up",
	} {
		ns.Run(t, "sh", "-c", cmd)
	}
	tests := []struct {
		name  string
		pools []netip.Prefix
		own   string
		want  string // a part of the error; "" for none
		free  string
	}{
		{"free", prefixes("10.20.0.0/16", "fd00:9::/64"), "fief0", "", ""},
		{"own device", prefixes("10.200.0.0/16"), "fief0", "", ""},
		{"another's device", prefixes("10.200.0.0/16"), "", "10.200.0.0/16 on fief0", "10.12.0.0/16"},
		{"inside a LAN", prefixes("192.168.1.128/25"), "fief0", "pool 192.168.1.128/25 overlaps the host's network 192.168.1.0/24 on lan0; choose another, such as 10.9.128.0/24", ""},
		{"around a LAN", prefixes("192.168.0.0/16"), "fief0", "192.168.1.0/24 on lan0", "10.12.0.0/16"},
		{"a VPN's route", prefixes("10.9.0.0/16"), "fief0", "10.9.0.0/17 on vpn0", "10.12.0.0/16"},
		{"a single address", prefixes("10.64.0.0/16"), "fief0", "10.64.0.2/32 on vpn0", ""},
		{"the second of two", prefixes("10.12.0.0/16", "10.64.0.0/16"), "fief0", "pool 10.64.0.0/16", "10.13.0.0/16"},
		{"loopback", prefixes("127.0.0.0/16"), "fief0", "on lo", ""},
		{"IPv6", prefixes("fd00:5::/48"), "fief0", "fd00:5::/64 on vpn0", ""},
		{"blackhole", prefixes("172.16.0.0/16"), "fief0", "", ""},
		{"below a default route", prefixes("203.0.113.0/24", "2001:db8::/64"), "fief0", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns.Do(t, func() {
				err := Clash(tt.pools, tt.own)
				if tt.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				clash, ok := errors.AsType[*ClashError](err)
				if !ok || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want %q", err, tt.want)
				}
				if tt.free != "" && clash.Free.String() != tt.free {
					t.Errorf("proposes %s, want %s", clash.Free, tt.free)
				}
				if err := Clash(append(slices.Clone(tt.pools[:0]), clash.Free), tt.own); err != nil {
					t.Errorf("the proposal clashes: %v", err)
				}
			})
		})
	}
}

func TestProposalLeavesTheFirstRange(t *testing.T) {
	whole := []taken{{prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	for pool, want := range map[string]string{"10.9.0.0/16": "172.16.0.0/16", "10.9.0.0/24": "172.25.0.0/24"} {
		if got := propose(netip.MustParsePrefix(pool), whole); !got.IsValid() || got.Overlaps(whole[0].prefix) || got.Bits() != netip.MustParsePrefix(want).Bits() {
			t.Errorf("for %s: %s; want one such as %s", pool, got, want)
		}
	}
	for _, p := range privateRanges[1:] {
		whole = append(whole, taken{prefix: p})
	}
	if got := propose(netip.MustParsePrefix("10.9.0.0/16"), whole); got.IsValid() {
		t.Errorf("%s although all ranges are taken", got)
	}
}
