package nat

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

// Published is a port, or a range of them, of the host that leads to a vassal.
// It is of one family: that of To.
type Published struct {
	Device      string         // of the network whose vassal it is
	Host        netip.Addr     // the host's; the unspecified one means all of that family
	First, Last uint16         // the host's ports
	Proto       uint8          // TCP or UDP
	To          netip.AddrPort // where First leads; the others follow
	From        []netip.Prefix // who may come; empty: everybody
}

func (p *Published) String() string {
	s := netip.AddrPortFrom(p.Host, p.First).String()
	if p.Last != p.First {
		s += fmt.Sprintf("-%d", p.Last)
	}
	return s + "/" + p.protocol()
}

func (p *Published) v6() bool { return p.To.Addr().Is6() }

func (p *Published) protocol() string { return firewall.ProtoText(p.Proto) }

// byLoopback reports whether programs of the host reach it by 127.0.0.1 or ::1.
func (p *Published) byLoopback() bool { return p.Host.IsUnspecified() || p.Host.IsLoopback() }

// check compares it with the networks that it may be of.
func (p *Published) check(nets []Network) error {
	i := slices.IndexFunc(nets, func(n Network) bool { return n.Device == p.Device })
	bad := func(format string, args ...any) error {
		return fmt.Errorf("published port %s: %s", p, fmt.Sprintf(format, args...))
	}
	to := p.To.Addr()
	switch {
	case p.Proto != unix.IPPROTO_TCP && p.Proto != unix.IPPROTO_UDP:
		return bad("protocol %d is neither TCP nor UDP", p.Proto)
	case !to.IsValid() || to.Is4In6() || to.Zone() != "":
		return bad("%v is no address of a vassal", to)
	case !p.Host.IsValid() || p.Host.Is4In6() || p.Host.Zone() != "" || p.Host.Is6() != p.v6() || p.Host.IsMulticast():
		return bad("the host's address %v is not of the family of %v", p.Host, to)
	case p.First == 0 || p.Last < p.First || p.To.Port() == 0 || int(p.To.Port())+int(p.Last-p.First) > 65535:
		return bad("ports %d-%d cannot lead to %d and on", p.First, p.Last, p.To.Port())
	case i < 0:
		return bad("there is no network %s", p.Device)
	case !slices.ContainsFunc(nets[i].Pool, func(pool netip.Prefix) bool { return pool.Contains(to) }):
		return bad("%v is not in the pool of %s", to, p.Device)
	}
	for _, from := range p.From {
		if !from.IsValid() || from.Addr().Is6() != p.v6() || from.Addr().Is4In6() {
			return bad("the source %v is not of the family of %v", from, to)
		}
	}
	return nil
}

// rules are what sends packets for it to the vassal, one for each source.
func (p *Published) rules() (rules []string) {
	what := p.matches() + " -j DNAT --to-destination " + p.target()
	if len(p.From) == 0 {
		return []string{what}
	}
	for _, from := range p.From {
		rules = append(rules, fmt.Sprintf("-s %s %s", from.Masked(), what))
	}
	return rules
}

// matches is what packets for it are told by, whoever sends them.
func (p *Published) matches() string {
	what := fmt.Sprintf("-p %s -m %[1]s --dport %s", p.protocol(), portRange(p.First, p.Last))
	if !p.Host.IsUnspecified() {
		what = fmt.Sprintf("-d %s %s", p.Host, what)
	}
	return what
}

// target is DNAT's: with ports only if they are others, and with the base of a
// range that is moved as a whole (Linux 4.18; without, any port of it is taken).
func (p *Published) target() string {
	switch {
	case p.To.Port() == p.First && p.v6():
		return "[" + p.To.Addr().String() + "]"
	case p.To.Port() == p.First:
		return p.To.Addr().String()
	case p.First == p.Last:
		return p.To.String()
	}
	return fmt.Sprintf("%s-%d/%d", p.To, p.To.Port()+(p.Last-p.First), p.First)
}

// portRange is written as iptables does.
func portRange(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d:%d", first, last)
}
