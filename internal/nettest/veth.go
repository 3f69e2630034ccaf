package nettest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a cable: a device in a namespace and its addresses.
type End struct {
	NS    *NS
	Name  string
	Addrs []netip.Prefix
}

// Veth connects two namespaces by a pair of devices, both up and usable when it
// returns.
func Veth(t testing.TB, a, b End) {
	t.Helper()
	a.NS.Do(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a.Name
		if err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(b.NS.Handle),
		}); err != nil {
			t.Fatalf("make veth %s - %s: %v", a.Name, b.Name, err)
		}
	})
	a.configure(t)
	b.configure(t)
	for _, end := range []End{a, b} {
		// Before the carrier is up packets vanish without an error.
		Eventually(t, 5*time.Second, end.Name+" has its carrier", func() (up bool) {
			end.NS.Do(t, func() {
				link, err := netlink.LinkByName(end.Name)
				up = err == nil && link.Attrs().OperState == netlink.OperUp
			})
			return up
		})
	}
}

func (e End) configure(t testing.TB) {
	t.Helper()
	e.NS.Do(t, func() {
		link, err := netlink.LinkByName(e.Name)
		if err != nil {
			t.Fatalf("find %s: %v", e.Name, err)
		}
		for _, p := range e.Addrs {
			addr := &netlink.Addr{IPNet: ipNet(p)}
			if p.Addr().Is6() {
				addr.Flags = unix.IFA_F_NODAD // usable at once, not after a second of duplicate detection
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				t.Fatalf("add %v to %s: %v", p, e.Name, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatalf("bring up %s: %v", e.Name, err)
		}
	})
}

// Route adds a default route through a gateway, of the gateway's family.
func (ns *NS) Route(t testing.TB, gateway netip.Addr) {
	t.Helper()
	ns.Do(t, func() {
		if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
			t.Fatalf("add default route by %v: %v", gateway, err)
		}
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
