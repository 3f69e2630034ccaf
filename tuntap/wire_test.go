package tuntap

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// cable is a real world with a wire to an internet: behind it, both ends of the
// wire leave nothing to their drivers, so that what is captured on it is what a
// network would see.
type cable struct {
	*realWorld
	blogNS, shopNS *nettest.NS // handed over; and behind frames, where there is no header to leave anything undone in
	inetNS         *nettest.NS
}

func newCable(t *testing.T) *cable {
	t.Helper()
	nettest.Root(t)
	c := &cable{realWorld: newRealWorld(t, native()), inetNS: nettest.NewNS(t)}
	nettest.Veth(t,
		nettest.End{NS: c.hostNS, Name: "up0", Addrs: prefixes(nettest.HostAddr4.String()+"/24", nettest.HostAddr6.String()+"/64")},
		nettest.End{NS: c.inetNS, Name: "eth0", Addrs: prefixes(nettest.InetAddr4.String()+"/24", nettest.InetAddr6.String()+"/64")})
	c.hostNS.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	for _, iptables := range []string{"iptables", "ip6tables"} {
		c.hostNS.Run(t, iptables, "-w", "-t", "nat", "-A", "POSTROUTING", "-o", "up0", "-j", "MASQUERADE")
	}
	c.inetNS.Route(t, nettest.HostAddr4)
	c.inetNS.Route(t, nettest.HostAddr6)
	c.blogNS, _ = c.jail("blog", blog, blog6)
	c.shopNS = c.streamJail(shop, shop6)
	for _, ns := range []*nettest.NS{c.blogNS, c.shopNS} {
		for _, gw := range []netip.Addr{gateway, gateway6} {
			ns.Route(t, gw)
			ns.Run(t, "ping", "-c", "1", "-W", "5", gw.String())
		}
	}
	return c
}

// offloadsOff leaves both ends of the wire without offloads. What comes in is
// merged again by the host (GRO), so that the router gets large packets from it.
func (c *cable) offloadsOff(t *testing.T) {
	t.Helper()
	c.hostNS.Do(t, func() { offloadsOff(t, "up0"); ethtool(t, "up0", setReceiveMerge, 1) })
	c.inetNS.Do(t, func() { offloadsOff(t, "eth0") })
}

// What vassals' kernels leave undone, and what the router merges, is whole and
// right on a wire whose ends do nothing, to the last packet.
func TestPacketsOnTheWireAreRight(t *testing.T) {
	c := newCable(t)
	c.offloadsOff(t)
	far, frames := capture(t, c.inetNS, "eth0"), capture(t, c.shopNS, "eth0")
	near, host := capture(t, c.blogNS, "eth0"), capture(t, c.hostNS, "fief0") // where there is still much to do

	small := load{writes: 64, size: 64, rounds: scaled(50, 20000)}
	cut := load{writes: 1, size: 20000, segment: 1400, rounds: scaled(20, 2000)}
	even := load{writes: 4, size: 1448, rounds: scaled(20, 2000)}
	port := uint16(7000)
	for _, v := range []struct {
		name     string
		from, to *nettest.NS
		src, dst netip.Addr
		load     load
		merged   bool
		wires    []*tap // where it passes
	}{
		{"bursts", c.blogNS, c.inetNS, blog, nettest.InetAddr4, small, true, []*tap{far}},
		{"bursts, IPv6", c.blogNS, c.inetNS, blog6, nettest.InetAddr6, small, true, []*tap{far}},
		{"UDP_SEGMENT", c.blogNS, c.inetNS, blog, nettest.InetAddr4, cut, false, []*tap{far}},
		{"UDP_SEGMENT, IPv6", c.blogNS, c.inetNS, blog6, nettest.InetAddr6, cut, false, []*tap{far}},
		{"bursts of frames", c.shopNS, c.inetNS, shop, nettest.InetAddr4, small, false, []*tap{far, frames}},
		{"bursts of frames, IPv6", c.shopNS, c.inetNS, shop6, nettest.InetAddr6, small, false, []*tap{far, frames}},
		{"frames of 1448 bytes", c.shopNS, c.inetNS, shop, nettest.InetAddr4, even, false, []*tap{far, frames}},
		{"UDP_SEGMENT to frames", c.blogNS, c.shopNS, blog, shop, cut, false, []*tap{frames}},
		{"UDP_SEGMENT to frames, IPv6", c.blogNS, c.shopNS, blog6, shop6, cut, false, []*tap{frames}},
		{"bursts to frames", c.blogNS, c.shopNS, blog, shop, small, false, []*tap{frames}},
		{"bursts to frames, IPv6", c.blogNS, c.shopNS, blog6, shop6, small, false, []*tap{frames}},
	} {
		port++
		t.Run(v.name, func(t *testing.T) {
			writes := received(t, c.hostNS, "fief0")
			exchange(t, v.from, v.to, netip.AddrPortFrom(v.src, 6000), netip.AddrPortFrom(v.dst, port), v.load)
			writes = received(t, c.hostNS, "fief0") - writes
			n := v.load.rounds * v.load.datagrams()
			if v.merged && writes > n*9/10 {
				t.Errorf("%d datagrams were written one by one: %d writes", n, writes)
			}
			for _, w := range v.wires {
				w.passed(t, v.src.Is6(), protoUDP, port, n)
			}
		})
	}
	for _, v := range []struct {
		name     string
		from, to *nettest.NS
		dst      netip.Addr
		wires    []*tap
	}{
		{"TCP out", c.blogNS, c.inetNS, nettest.InetAddr4, []*tap{far}},
		{"TCP out, IPv6", c.blogNS, c.inetNS, nettest.InetAddr6, []*tap{far}},
		{"TCP back", c.inetNS, c.blogNS, blog, []*tap{far}},
		{"TCP back, IPv6", c.inetNS, c.blogNS, blog6, []*tap{far}},
		{"TCP of frames out", c.shopNS, c.inetNS, nettest.InetAddr4, []*tap{far, frames}},
		{"TCP of frames out, IPv6", c.shopNS, c.inetNS, nettest.InetAddr6, []*tap{far, frames}},
		{"TCP back to frames", c.inetNS, c.shopNS, shop, []*tap{far, frames}},
		{"TCP back to frames, IPv6", c.inetNS, c.shopNS, shop6, []*tap{far, frames}},
		{"TCP to frames", c.blogNS, c.shopNS, shop, []*tap{frames}},
		{"TCP to frames, IPv6", c.blogNS, c.shopNS, shop6, []*tap{frames}},
	} {
		port++
		t.Run(v.name, func(t *testing.T) {
			transfer(t, v.from, v.to, netip.AddrPortFrom(v.dst, port))
			for _, w := range v.wires {
				w.passed(t, v.dst.Is6(), protoTCP, port, 1)
			}
		})
	}
	far.stop().clean(t, "on the wire")
	frames.stop().clean(t, "behind the frames")
	if v, h := near.stop(), host.stop(); v.undone == 0 || v.largeOut == 0 || h.undone == 0 || h.largeIn == 0 || h.largeOut == 0 {
		t.Errorf("nothing was left to do: %d of the vassal's packets without a checksum, %d large; at the host %d, %d came large and %d left so",
			v.undone, v.largeOut, h.undone, h.largeIn, h.largeOut)
	}
	rightChecksums(t, c.inetNS)
	rightChecksums(t, c.shopNS)
	rightChecksums(t, c.blogNS)
}

// The capture is no yes-man: it finds a datagram that was damaged on purpose,
// and a wire whose ends leave checksums and cutting to each other.
func TestCaptureFindsWhatIsWrong(t *testing.T) {
	c := newCable(t)
	t.Run("offloads left on", func(t *testing.T) {
		wire := capture(t, c.inetNS, "eth0")
		exchange(t, c.blogNS, c.inetNS, netip.AddrPortFrom(blog, 6000), netip.AddrPortFrom(nettest.InetAddr4, 7000), load{writes: 1, size: 20000, segment: 1400, rounds: 3})
		if s := wire.stop(); s.undone == 0 || s.largeIn == 0 || s.fault == nil {
			t.Errorf("found %d without a checksum, %d too large; want both", s.undone, s.largeIn)
		}
	})
	c.offloadsOff(t)
	for name, v := range map[string]struct{ src, dst netip.Addr }{
		"damaged":       {netip.MustParseAddr("10.9.0.99"), nettest.InetAddr4},
		"damaged, IPv6": {netip.MustParseAddr("fd09::99"), nettest.InetAddr6},
	} {
		t.Run(name, func(t *testing.T) {
			wire := capture(t, c.inetNS, "eth0")
			good := tuntest.UDP(netip.AddrPortFrom(v.src, 6000), netip.AddrPortFrom(v.dst, 7000), []byte("whole"))
			f := c.connect()
			f.send(good) // registers
			f.send(changed(good, len(good)-1, 'x'))
			f.send(good)
			nettest.Eventually(t, 5*time.Second, "three datagrams on the wire", func() bool {
				in, _ := wire.soFar(v.src.Is6(), protoUDP, 7000)
				return in >= 3
			})
			s := wire.stop()
			if s.wrong != 1 || s.undone+s.largeIn+s.largeOut != 0 || s.fault == nil || !strings.Contains(s.fault.Error(), "wrong checksum of protocol 17") {
				t.Errorf("found %d wrong, %d undone, %d large, %v; want the one that was damaged", s.wrong, s.undone, s.largeIn, s.fault)
			}
		})
	}
}
