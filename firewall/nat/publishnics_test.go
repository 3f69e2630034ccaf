package nat

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// A host with two devices forwards nothing that it did not before, but what is
// published, and that by both.
func TestTwoNICsPublish(t *testing.T) {
	for _, masquerade := range []string{Auto, ""} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("masquerade=%s, old IPv6=%v", masquerade, old), func(t *testing.T) {
				t.Parallel()
				w := newTown(t)
				serve(t, w.pool, 8000)
				w.inet.Run(t, "ip", "route", "add", lan4, "via", host4)
				w.inet.Run(t, "ip", "route", "add", lan6, "via", host6)
				h := newHost(t, w.host, "test", t.TempDir())
				h.oldIPv6 = old
				nets := networks()
				nets[0].Masquerade = masquerade
				apply(t, w.host, h, nets...)
				for _, seen := range []bool{true, false} {
					if seen {
						publish(t, w.host, h, everywhere()...)
					} else {
						publish(t, w.host, h)
					}
					for addr, from := range map[string]*nettest.NS{host4: w.inet, host6: w.inet, "192.0.2.1": w.lan, "2001:db8:192::1": w.lan} {
						want := map[string]string{host4: inet4, host6: inet6, "192.0.2.1": lan4, "2001:db8:192::1": lan6}[addr]
						if !seen {
							want = ""
						}
						wantAnswer(t, from, net.JoinHostPort(addr, "8080"), want)
					}
					wantReach(t, false, w.inet, lan4, lan6)
					wantReach(t, false, w.lan, inet4, inet6)
					if n := forwardedTo(t, w.site, lan4); n != 0 {
						t.Errorf("%d packets reached the other network", n)
					}
					for _, addr := range []string{pool4, pool6} { // lan's default route is by the host
						wantAnswer(t, w.lan, net.JoinHostPort(addr, "8000"), "")
					}
					wantReach(t, false, w.stranger, lan4, lan6, pool4, pool6)
					if masquerade == "" {
						wantReach(t, false, w.pool, lan4, lan6, stranger4)
					}
				}
			})
		}
	}
}

// A device that comes later brings its visitors too.
func TestPublishFollowsDevices(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	publish(t, w.host, h, everywhere()...)
	watch(t, w.host, h)
	late := nettest.NewNS(t)
	w.connect(t, "eth2", "203.0.113.1/24", "2001:db8:203::1/64", late, "203.0.113.2/24", "2001:db8:203::2/64")
	nettest.Eventually(t, soon, "it forwards", func() bool { return sysctl(t, w.host, "ipv4/conf/eth2/forwarding") == "1" })
	wantAnswer(t, late, "203.0.113.1:8080", "203.0.113.2")
	// The ports of a bridge are none that anything comes in by.
	w.host.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link add p0 type veth peer name p1; ip link set p0 master br0; ip link set br0 up")
	nettest.Eventually(t, soon, "the bridge forwards", func() bool { return sysctl(t, w.host, "ipv4/conf/br0/forwarding") == "1" })
	if got := sysctl(t, w.host, "ipv4/conf/p0/forwarding"); got != "0" {
		t.Errorf("forwarding of a bridge's port is %s", got)
	}
	if got := w.host.Run(t, "iptables", "-S", "fiefdom-test-fwd"); !strings.Contains(got, "-i eth2 -m conntrack ! --ctstate") {
		t.Errorf("it has no guard:\n%s", got)
	}
}

// Whoever publishes on the address of his VPN is reached by it.
func TestPublishOnVPN(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	publish(t, w.host, h, port("172.20.0.1", 8080, 8080, pool4+":8000"))
	watch(t, w.host, h)
	w.host.Run(t, "sh", "-ec", "for d in vpn0 vpn1; do ip tuntap add dev $d mode tun; ip link set $d up; done; ip address add 172.20.0.1/24 dev vpn0")
	nettest.Eventually(t, soon, "the VPN forwards", func() bool { return sysctl(t, w.host, "ipv4/conf/vpn0/forwarding") == "1" })
	if got := sysctl(t, w.host, "ipv4/conf/vpn1/forwarding"); got != "0" {
		t.Errorf("forwarding of a tun that nothing is published by is %s", got)
	}
	if got := w.host.Run(t, "iptables", "-S", "fiefdom-test-fwd"); !strings.Contains(got, "-i vpn0 -m conntrack ! --ctstate") {
		t.Errorf("it has no guard:\n%s", got)
	}
}
