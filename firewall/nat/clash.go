package nat

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/dump"
)

// ClashError says that a pool overlaps a network of the host.
type ClashError struct {
	Pool   netip.Prefix
	Taken  netip.Prefix // the host's
	Device string       // by which the host reaches Taken; may be empty
	Free   netip.Prefix // a prefix that clashes with nothing, or invalid if there is none
}

func (e *ClashError) Error() string {
	s := fmt.Sprintf("pool %s overlaps the host's network %s", e.Pool, e.Taken)
	if e.Device != "" {
		s += " on " + e.Device
	}
	if e.Free.IsValid() {
		s += fmt.Sprintf("; choose another, such as %s", e.Free)
	}
	return s
}

// taken is a prefix that the host uses already.
type taken struct {
	prefix netip.Prefix
	device string
}

// widest is the widest prefix that is somebody's network: wider ones (/0, or
// the halves that VPNs use) are default routes and clash with nothing.
const widest = 7

// Clash returns a *ClashError if one of the prefixes overlaps an address or a
// unicast route of the host, those of ownDevice aside.
func Clash(prefixes []netip.Prefix, ownDevice string) error {
	used, err := hostNetworks(ownDevice)
	if err != nil {
		return err
	}
	for _, pool := range prefixes {
		if i := slices.IndexFunc(used, func(t taken) bool { return t.prefix.Overlaps(pool) }); i >= 0 {
			for _, p := range prefixes {
				used = append(used, taken{prefix: p})
			}
			return &ClashError{Pool: pool, Taken: used[i].prefix, Device: used[i].device, Free: propose(pool, used)}
		}
	}
	return nil
}

// hostNetworks lists the prefixes of addresses and of the main table's routes.
func hostNetworks(ownDevice string) (used []taken, err error) {
	names := map[int]string{}
	links, err := dump.Links()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	add := func(n *net.IPNet, index int) {
		if p, ok := prefixOf(n); ok && p.Bits() >= widest && (ownDevice == "" || names[index] != ownDevice) {
			used = append(used, taken{p, names[index]})
		}
	}
	addrs, err := dump.Addrs(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet, a.LinkIndex)
	}
	for _, v6 := range families {
		routes, err := mainRoutes(v6)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST { // blackholes of unused ranges are no networks
				add(r.Dst, r.LinkIndex)
			}
		}
	}
	return used, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if len(n.Mask) == net.IPv4len {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones).Masked(), ok
}

// propose finds a free prefix: for IPv4 a /16 of the private ranges (RFC
// 1918), or a /24 for a pool that is no larger; for IPv6 a /64 of fd00::/8 (RFC
// 4193). It is invalid when none is free.
func propose(pool netip.Prefix, used []taken) netip.Prefix {
	free := func(p netip.Prefix) bool {
		return !slices.ContainsFunc(used, func(t taken) bool { return t.prefix.Overlaps(p) })
	}
	for i := range 1 << 16 {
		if !pool.Addr().Is6() {
			break
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", pool, i))
		p := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, sum[0], sum[1], sum[2], sum[3], sum[4]}), 64)
		if free(p) {
			return p
		}
	}
	size := 16
	if pool.Bits() >= 24 {
		size = 24
	}
	for _, base := range privateRanges {
		count := 1 << (size - base.Bits())
		for i := range count {
			// From 10.9 on: the low ones are everybody's first choice.
			p := subnet(base, size, (i+9*count/256)%count)
			if free(p) {
				return p
			}
		}
	}
	return netip.Prefix{}
}

var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

// subnet is the n-th subnet of a size in bits of an IPv4 prefix.
func subnet(base netip.Prefix, bits, n int) netip.Prefix {
	b := base.Masked().Addr().As4()
	first := binary.BigEndian.Uint32(b[:]) + uint32(n)<<(32-bits)
	binary.BigEndian.PutUint32(b[:], first)
	return netip.PrefixFrom(netip.AddrFrom4(b), bits)
}
