package firewall

import (
	"net/netip"
	"slices"
)

// Shadow is a rule that never decides, since others come first.
type Shadow struct {
	Rule int   // its index
	By   []int // the rules before it that decide instead, in order; none: no packet is as the rule says
}

// shadowWork bounds what is spent on one rule. A chain that needs more is odd
// enough that nothing is said about the rule.
const shadowWork = 20_000

// Shadowed returns the rules that can never decide. It is exact for addresses,
// protocols and ports: rules that cover another only together count too. (A rule
// that took more than a bounded number of steps to judge is left out.)
func Shadowed(rules []Rule) []Shadow {
	var found []Shadow
	for i := range rules {
		used := map[int]bool{}
		work := shadowWork
		dead := true
		for _, b := range boxes(&rules[i]) {
			if !covered(b, rules[:i], 0, used, &work) {
				dead = false
				break
			}
		}
		if !dead {
			continue
		}
		s := Shadow{Rule: i}
		for k := range used {
			s.By = append(s.By, k)
		}
		slices.Sort(s.By)
		found = append(found, s)
	}
	return found
}

// span is a range of numbers, both ends included.
type span struct{ first, last int }

// box is a set of flows: the product of its sides. All of one family.
type box struct {
	src, dst netip.Prefix
	proto    span // of protocol numbers
	port     span // of the destination; all of them where packets have none
}

var everyPort = span{0, 65535}

var everyPrefix = [2]netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// boxes are the packets that a rule matches.
func boxes(r *Rule) (list []box) {
	for f, every := range everyPrefix {
		has := [2]func(netip.Prefix) bool{in4, in6}[f]
		if !has(r.Src) || !has(r.Dst) {
			continue
		}
		b := box{src: every, dst: every}
		if r.Src.IsValid() {
			b.src = r.Src.Masked()
		}
		if r.Dst.IsValid() {
			b.dst = r.Dst.Masked()
		}
		list = b.withPorts(list, r)
	}
	return list
}

// withPorts appends b once for each protocol and range of ports of a rule. A
// packet of a protocol with ports always shows them: one that is too short is
// malformed, and the later parts of a datagram are never asked about.
func (b box) withPorts(list []box, r *Rule) []box {
	protos := span{int(r.Proto), int(r.Proto)}
	if r.Proto == 0 {
		protos = span{0, 255}
	}
	if len(r.Ports) == 0 {
		b.proto, b.port = protos, everyPort
		return append(list, b)
	}
	for proto := protos.first; proto <= protos.last; proto++ {
		b.proto = span{proto, proto}
		switch {
		case hasPorts(uint8(proto)):
			for _, p := range r.Ports {
				b.port = span{int(p.First), int(p.Last)}
				list = append(list, b)
			}
		case r.Action != Allow: // see Verdict
			b.port = everyPort
			list = append(list, b)
		}
	}
	return list
}

// covered reports whether every flow of b is matched by one of rules, from the
// given one on, and notes which. What a rule takes of b only in part is cut
// off, and what is left goes on to the next.
func covered(b box, rules []Rule, from int, used map[int]bool, work *int) bool {
	for i := from; i < len(rules); i++ {
		for _, other := range boxes(&rules[i]) {
			if *work--; *work < 0 {
				return false
			}
			rest, overlaps := b.without(other)
			if !overlaps {
				continue
			}
			used[i] = true
			for _, piece := range rest {
				// The same rule again: it may have more boxes.
				if !covered(piece, rules, i, used, work) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// without cuts other off b and returns the rest, in pieces; false when they
// have nothing in common.
func (b box) without(other box) (rest []box, overlaps bool) {
	if !b.src.Overlaps(other.src) || !b.dst.Overlaps(other.dst) || !b.proto.meets(other.proto) || !b.port.meets(other.port) {
		return nil, false
	}
	for b.src.Bits() < other.src.Bits() {
		low, high := halves(b.src)
		away := b
		b.src, away.src = low, high
		if high.Overlaps(other.src) {
			b.src, away.src = high, low
		}
		rest = append(rest, away)
	}
	for b.dst.Bits() < other.dst.Bits() {
		low, high := halves(b.dst)
		away := b
		b.dst, away.dst = low, high
		if high.Overlaps(other.dst) {
			b.dst, away.dst = high, low
		}
		rest = append(rest, away)
	}
	for _, s := range b.proto.without(other.proto) {
		away := b
		away.proto = s
		rest = append(rest, away)
	}
	b.proto = b.proto.and(other.proto)
	for _, s := range b.port.without(other.port) {
		away := b
		away.port = s
		rest = append(rest, away)
	}
	return rest, true
}

// halves are the two prefixes that one of fewer bits than an address is made of.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bytes := p.Addr().AsSlice()
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	bytes[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(bytes) // as long as it was
	return low, netip.PrefixFrom(addr, p.Bits()+1)
}

func (s span) meets(o span) bool { return s.first <= o.last && o.first <= s.last }

func (s span) and(o span) span { return span{max(s.first, o.first), min(s.last, o.last)} }

// without are the parts of s beside o, which meets it.
func (s span) without(o span) (rest []span) {
	if s.first < o.first {
		rest = append(rest, span{s.first, o.first - 1})
	}
	if s.last > o.last {
		rest = append(rest, span{o.last + 1, s.last})
	}
	return rest
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
