package hostile

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const isolation = "the router: isolate"

var networkRows = []Row{
	{"host-loopback", "the network", "connects to what listens on the host's loopback", "a network namespace of its own", func(s *Site) Finding { return anyOf(s.Loopback, reaches) }},
	{"host-services", "the network", "connects to what listens on the host's other addresses, the router's among them", isolation, func(s *Site) Finding { return anyOf(s.Host, reaches) }},
	{"other-vassals", "the network", "connects to other vassals", isolation, func(s *Site) Finding { return anyOf(s.Others, reaches) }},
	{"private-networks", "the network", "connects to the networks around the host, and to the cloud's metadata", isolation, func(s *Site) Finding { return anyOf(s.LAN, reaches) }},
	{"packet-socket", "the network", "reads and writes whole packets (AF_PACKET)", "no capability", func(*Site) Finding { return family(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
	{"raw-ip", "the network", "makes packets of its own (SOCK_RAW)", "no capability", func(*Site) Finding {
		if f := family(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); f.Outcome != Contained {
			return f
		}
		return family(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	}},
	{"spoof", "the network", "sends with another vassal's address as the source: raw, by IP_TRANSPARENT, by IP_FREEBIND", "no capability; the router knows whose an address is", (*Site).spoofs},
	{"new-address", "the network", "gives its device another address", "no capability", func(*Site) Finding {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return judge(err)
		}
		addr, err := netlink.ParseAddr("192.0.2.66/32")
		if err != nil {
			return unclear("%v", err)
		}
		if err = netlink.AddrAdd(lo, addr); err == nil {
			_ = netlink.AddrDel(lo, addr)
		}
		return judge(err, unix.EEXIST)
	}},
	{"new-route", "the network", "makes itself another route", "no capability", func(*Site) Finding {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return judge(err)
		}
		_, dst, _ := net.ParseCIDR("192.0.2.128/25")
		route := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}
		if err = netlink.RouteAdd(&route); err == nil {
			_ = netlink.RouteDel(&route)
		}
		return judge(err, unix.EEXIST)
	}},
	{"set-link", "the network", "makes a device of its own (a dummy, by netlink)", "no capability", func(*Site) Finding {
		link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "hostile0"}}
		err := netlink.LinkAdd(link)
		if err == nil {
			_ = netlink.LinkDel(link)
		}
		return judge(err, unix.EEXIST, unix.EOPNOTSUPP)
	}},
	{"tun-device", "the network", "makes a device whose packets it writes itself (tun)", fewDevices + "; no capability", func(*Site) Finding {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return contained("%v", err)
		}
		if err != nil {
			return judge(err)
		}
		defer unix.Close(fd)
		request, err := unix.NewIfreq("hostile%d")
		if err != nil {
			return unclear("%v", err)
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return judge(unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	}},
	{"packet-filter", "the network", "reads and changes the rules of its kernel's firewall (iptables, nftables)", "no capability", func(*Site) Finding {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if refused(err) { // the kernel asks for the right at the option once more, whatever the socket
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		if err != nil {
			return judge(err)
		}
		defer unix.Close(fd)
		const getInfo = 64
		var info [84]byte
		copy(info[:], "filter")
		size := uint32(len(info))
		err = sys(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, getInfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)))
		if errors.Is(err, unix.ENOPROTOOPT) {
			return absent("%v", err)
		}
		return judge(err, unix.ENOENT)
	}},
}

// reaches says whether somebody lets us in at an address.
func reaches(address string) Finding {
	conn, err := net.DialTimeout("tcp", address, connectTime)
	if err == nil {
		conn.Close()
		return escaped("%s answers", address)
	}
	return contained("%v", err)
}

// spoofs sends a datagram with a source that is not its own, in three ways.
func (s *Site) spoofs() Finding {
	from, err := netip.ParseAddr(s.Foreign)
	if err != nil || !from.Is4() {
		return unclear("foreign address %q: %v", s.Foreign, err)
	}
	to, err := netip.ParseAddr(s.Gateway)
	if err != nil || !to.Is4() {
		return unclear("gateway %q: %v", s.Gateway, err)
	}
	target := &unix.SockaddrInet4{Port: 9, Addr: to.As4()}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		defer unix.Close(raw)
		if err = unix.Sendto(raw, datagram(from, to), 0, target); err == nil {
			return escaped("a raw packet from %v left", from)
		}
	}
	for name, option := range map[string]int{"IP_TRANSPARENT": unix.IP_TRANSPARENT, "IP_FREEBIND": unix.IP_FREEBIND} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return unclear("%v", err)
		}
		err = unix.SetsockoptInt(fd, unix.SOL_IP, option, 1)
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}), unix.Sendto(fd, []byte("x"), 0, target))
		}
		_ = unix.Close(fd)
		if err == nil {
			return escaped("a datagram from %v left, by %s", from, name)
		}
	}
	return contained("nothing left with that source (%v)", err)
}

// datagram is an UDP datagram without a byte in an IPv4 packet; the kernel makes
// the header's checksum.
func datagram(from, to netip.Addr) []byte {
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[20:], uint16(os.Getpid()))
	binary.BigEndian.PutUint16(b[22:], 9)
	binary.BigEndian.PutUint16(b[24:], 8)
	return b
}
