package tuntap

import (
	"net/netip"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// The rules by which a real uWSGI's device routes are understood, and reach
// only the far end that the config names.
func TestRealUWSGIDeviceRoutesByItsRules(t *testing.T) {
	nettest.Root(t)
	cfg := native()
	cfg.Host, cfg.FarEnds = []netip.Addr{near}, []netip.AddrPort{far}
	f := newFederation(t, cfg)
	startUWSGI(t, nettest.NewNS(t), f.socket,
		"--tuntap-device-rule", "out 10.9.0.7 198.51.100.9 gateway 198.51.100.2:4040",
		"--tuntap-device-rule", "out 10.9.0.7 198.51.100.10 route 198.51.100.2:4041",
		"--exec-as-root", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip address add 10.9.0.7/16 dev uwsgi0 && ip link set uwsgi0 up && ip route add default via 10.9.0.1",
		"--exec-as-root", "for to in 9 10; do ping -c 1 -W 1 198.51.100.$to; done; true")
	if h := f.await("registered"); h.addr != blog {
		t.Fatalf("registered %v", h.addr)
	}
	var pk packet
	if why := pk.decode(f.receive()); why != pass || pk.flow.Src != blog || pk.flow.Dst != netip.MustParseAddr("198.51.100.9") {
		t.Errorf("the far end got %v from %v to %v", why, pk.flow.Src, pk.flow.Dst)
	}
	nettest.Eventually(t, 10*time.Second, "the other ping to be dropped", func() bool {
		s, _ := f.find("")
		return s.Drops[DropForbidden] == 1 // there is no chatter that would count as well
	})
	if s := *f.r.Snapshot()[0].Gateway; s.TxPackets != 1 || !f.host.Empty() {
		t.Errorf("counted %+v; the host got nothing: %v", s, f.host.Empty())
	}
}
