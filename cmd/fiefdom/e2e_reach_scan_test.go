package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/tuntap/tuntest"
)

// scanner sends packets out of a device, whatever the routes of its namespace
// say, and hears what comes back.
type scanner struct {
	fd   int
	to   unix.SockaddrLinklayer // the next hop
	from [2]netip.Addr          // by family
}

// newScanner opens one; of a device without link layer the next hop is nil.
func newScanner(t *testing.T, ns vnetns.NsHandle, device string, next net.HardwareAddr) *scanner {
	t.Helper()
	s := &scanner{}
	err := netns.Do(ns, func() (err error) {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip, _ := netip.AddrFromSlice(a.IP); ip.Unmap().Is4() {
				s.from[0] = ip.Unmap()
			} else if ip.IsGlobalUnicast() {
				s.from[1] = ip
			}
		}
		s.to.Ifindex = link.Attrs().Index
		s.to.Halen = uint8(copy(s.to.Addr[:], next))
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(ethAll)); err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(s.fd) })
		// What waits to be read are answers alone, but for what the device has besides.
		return errors.Join(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: ethAll, Ifindex: s.to.Ifindex}))
	})
	if err != nil {
		t.Fatalf("scan by %s: %v", device, err)
	}
	return s
}

// ethAll is ETH_P_ALL in the network's order.
const ethAll = uint16(unix.ETH_P_ALL&0xff<<8 | unix.ETH_P_ALL>>8)

// scan sends a SYN, and a datagram, to every port of an address. It returns the
// ports that took them, as "80/tcp", in order, and how many packets came back.
func (s *scanner) scan(t *testing.T, to netip.Addr) (open []string, answers int) {
	t.Helper()
	from, ethertype := s.from[0], uint16(unix.ETH_P_IP)
	if to.Is6() {
		from, ethertype = s.from[1], unix.ETH_P_IPV6
	}
	s.to.Protocol = ethertype>>8 | ethertype<<8
	found := map[string]bool{}
	for port := 1; port <= 65535; port++ {
		// Each from a port of its own, so that no two of them look alike after DNAT.
		source, at := netip.AddrPortFrom(from, uint16(port)), netip.AddrPortFrom(to, uint16(port))
		for _, p := range [][]byte{tuntest.TCP(source, at, tuntest.SYN, 1, 0, nil), tuntest.UDP(source, at, []byte("?"))} {
			if err := unix.Sendto(s.fd, p, 0, &s.to); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Fatalf("send to %s: %v", at, err)
			}
		}
		if port%128 == 0 { // the queues on the way are short
			answers += s.hear(found, time.Millisecond)
		}
	}
	answers += s.hear(found, 500*time.Millisecond)
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		var x, y int
		_, _ = fmt.Sscan(strings.NewReplacer("/", " ").Replace(a), &x)
		_, _ = fmt.Sscan(strings.NewReplacer("/", " ").Replace(b), &y)
		if x != y {
			return x - y
		}
		return strings.Compare(a, b)
	}), answers
}

// hear reads what came back, until nothing has come for a while.
func (s *scanner) hear(open map[string]bool, quiet time.Duration) (answers int) {
	b := make([]byte, 2048)
	for end := time.Now().Add(quiet); ; {
		left := max(0, time.Until(end)+time.Millisecond-1) // the kernel counts whole ones
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(left.Milliseconds())); n == 0 {
			return answers
		} else if err != nil {
			continue
		}
		n, who, err := unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT)
		if err != nil {
			continue
		}
		if ll, ok := who.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		proto, payload := transport(b[:n])
		if len(payload) < 8 {
			continue
		}
		if proto == unix.IPPROTO_ICMP || proto == unix.IPPROTO_ICMPV6 && payload[0] < 128 {
			answers++ // an error: somebody looked at it
		}
		port := binary.BigEndian.Uint16(payload)
		if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP || port != binary.BigEndian.Uint16(payload[2:]) {
			continue
		}
		answers++
		if proto == unix.IPPROTO_UDP {
			open[fmt.Sprintf("%d/udp", port)] = true
		} else if proto == unix.IPPROTO_TCP && len(payload) >= 20 && payload[13]&tuntest.SYN != 0 {
			open[fmt.Sprintf("%d/tcp", port)] = true
		}
		end = time.Now().Add(quiet)
	}
}

// transport is a packet's protocol and what it carries.
func transport(p []byte) (proto int, payload []byte) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && len(p) >= int(p[0]&15)*4:
		return int(p[9]), p[int(p[0]&15)*4:]
	case len(p) >= 40 && p[0]>>4 == 6:
		return int(p[6]), p[40:]
	}
	return 0, nil
}

// A neighbour on the wire and vassals, who send to whatever address they like,
// find what is published and nothing else: no port of the host's loopback, and no
// vassal's own.
func TestNobodyFindsMoreThanIsPublished(t *testing.T) {
	t.Parallel()
	r := newReachRealm(t, "on", false)
	mac := func(ns vnetns.NsHandle, device string) (mac net.HardwareAddr) {
		if err := netns.Do(ns, func() error {
			link, err := netlink.LinkByName(device)
			if err == nil {
				mac = link.Attrs().HardwareAddr
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return mac
	}
	for _, c := range []struct {
		name   string
		from   vnetns.NsHandle
		next   net.HardwareAddr
		hosts  netip.Addr // an address of the host's that what is published is found at
		open   string     // what
		hidden []netip.Addr
	}{
		{
			"a neighbour", r.neighbour.Handle, mac(r.Host.Handle, "eth1"), secondAddrs[0],
			"8080/tcp 8080/udp 8083/tcp 8083/udp 8084/tcp 8084/udp 8180/tcp 8180/udp 8280/tcp 8280/udp 8800/tcp 8800/udp 9002/tcp 9002/udp",
			[]netip.Addr{loopbackAddrs[0], loopbackAddrs[1], r.where("blog", atApp, 0), r.where("blog", atApp, 1), r.where("wiki", atApp, 0)},
		},
		{
			"a vassal", r.asker(fromSame, "blog"), nil, routers["blog"][0],
			"53/tcp 8080/tcp 8080/udp 8084/tcp 8084/udp 8180/tcp 8180/udp 8280/tcp 8280/udp 9002/tcp 9002/udp",
			[]netip.Addr{loopbackAddrs[0], loopbackAddrs[1], r.where("blog", atApp, 0)},
		},
		{
			"a vassal that is not isolated", r.asker(fromOpen, "blog"), nil,
			netip.Addr{},
			"",
			[]netip.Addr{loopbackAddrs[0], r.where("blog", atApp, 0)},
		},
		{
			"a vassal in a bridge", r.asker(fromSame, "wiki"), mac(r.Host.Handle, "br0"), routers["wiki"][0],
			"53/tcp 8080/tcp 8080/udp 8084/tcp 8084/udp 8180/tcp 8180/udp 8280/tcp 8280/udp 9002/tcp 9002/udp",
			[]netip.Addr{loopbackAddrs[0], loopbackAddrs[1], r.where("blog", atApp, 0), r.where("wiki", atApp, 0)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScanner(t, c.from, "eth0", c.next)
			if c.open != "" { // so that nothing means something
				s.findsOnly(t, c.hosts, c.open)
			}
			for _, a := range c.hidden {
				if open, answers := s.scan(t, a); answers > 0 {
					t.Errorf("at %s it finds %q, %d packets came back", a, open, answers)
				}
			}
		})
	}
}

// findsOnly scans until all is found that there is, since a busy machine loses
// packets, and no more.
func (s *scanner) findsOnly(t *testing.T, at netip.Addr, want string) {
	t.Helper()
	missing := strings.Fields(want)
	for range 5 {
		open, _ := s.scan(t, at)
		for _, port := range open {
			if !slices.Contains(strings.Fields(want), port) {
				t.Errorf("at %s it finds %s", at, port)
			}
		}
		if missing = slices.DeleteFunc(missing, func(port string) bool { return slices.Contains(open, port) }); len(missing) == 0 {
			return
		}
	}
	t.Errorf("at %s it does not find %q", at, missing)
}
