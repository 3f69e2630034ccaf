package nat

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/dump"
)

// staleFlows are the UDP flows that go on as they were decided before the list
// of what is published changed: the kernel asks the rules about the first
// packet of a flow only, and a sender that never pauses keeps his for ever.
type staleFlows struct {
	published []Published // of UDP
	pools     []netip.Prefix
	own       []netip.Addr // the host's
}

// forgetFlows takes them from the kernel's table.
func (h *Host) forgetFlows(v6 bool) error {
	s := staleFlows{published: ofKind(h.published, v6, unix.IPPROTO_UDP)}
	for _, n := range h.nets {
		s.pools = append(s.pools, n.Pool...)
	}
	family, inet := netlink.FAMILY_V4, netlink.InetFamily(unix.AF_INET)
	if v6 {
		family, inet = netlink.FAMILY_V6, unix.AF_INET6
	}
	addrs, err := dump.Addrs(nil, family)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		s.own = append(s.own, addrOf(a.IP))
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, inet, &s); err != nil {
		return fmt.Errorf("delete flows: %w", err)
	}
	return nil
}

// MatchConntrackFlow reports whether a flow is stale. It is netlink's interface.
func (s *staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	src, dst := addrOf(flow.Forward.SrcIP), netip.AddrPortFrom(addrOf(flow.Forward.DstIP), flow.Forward.DstPort)
	answers := netip.AddrPortFrom(addrOf(flow.Reverse.SrcIP), flow.Reverse.SrcPort)
	if slices.Contains(s.own, dst.Addr()) || dst.Addr().IsLoopback() {
		for _, p := range s.published {
			if p.leads(src, dst) {
				return answers != netip.AddrPortFrom(p.To.Addr(), p.To.Port()+dst.Port()-p.First)
			}
		}
	}
	// Nobody is asked for any more, but a vassal answers.
	inPool := func(p netip.Prefix) bool { return p.Contains(answers.Addr()) }
	return answers != dst && slices.ContainsFunc(s.pools, inPool)
}

// leads reports whether a packet to the host is sent on to the vassal.
func (p *Published) leads(src netip.Addr, dst netip.AddrPort) bool {
	from := func(f netip.Prefix) bool { return f.Contains(src) }
	return dst.Port() >= p.First && dst.Port() <= p.Last &&
		(p.Host.IsUnspecified() || p.Host == dst.Addr()) &&
		(len(p.From) == 0 || slices.ContainsFunc(p.From, from))
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
