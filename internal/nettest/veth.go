package nettest

import (
	"net"
	"net/netip"
	"os"
	"slices"
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
		Eventually(t, 5*time.Second, end.Name+" is ready", func() (ready bool) {
			end.NS.Do(t, func() { ready = end.ready() })
			return ready
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
		// Without detection of duplicates addresses are in use a second earlier.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+e.Name+"/accept_dad", []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, p := range e.Addrs {
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
				t.Fatalf("add %v to %s: %v", p, e.Name, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatalf("bring up %s: %v", e.Name, err)
		}
	})
}

// ready is true once packets pass and nothing changes any more by itself: before
// the carrier is up they vanish without an error, and the kernel brings IPv6
// addresses, its own link-local one too, into use some time later.
func (e End) ready() bool {
	link, err := netlink.LinkByName(e.Name)
	if err != nil || link.Attrs().OperState != netlink.OperUp {
		return false
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return false
	}
	const filter = netlink.RT_FILTER_TABLE | netlink.RT_FILTER_TYPE | netlink.RT_FILTER_OIF
	local, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, LinkIndex: link.Attrs().Index,
	}, filter)
	want := 1
	for _, p := range e.Addrs {
		if p.Addr().Is6() {
			want++
		}
	}
	tentative := slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 })
	return err == nil && !tentative && len(addrs) == want && len(local) == want
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
