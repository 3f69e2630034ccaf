package firewall

import (
	"maps"
	"net/netip"
	"slices"
)

// Shadow is a rule that never decides, since others come first.
type Shadow struct {
	Rule int   // its index
	By   []int // rules that decide instead, enough of them, in order, counted through both chains; none: no packet is as the rule says
}

// Bounds of what is spent on one rule, and on all: a chain that needs more is
// odd enough, or so long, that nothing is said about the rules that are left.
const (
	shadowWork = 20_000
	shadowAll  = 10_000_000
)

// Shadowed returns the rules that can never decide about a packet that chain
// before, which may be empty, has let through. It is exact for addresses,
// protocols and ports: rules that cover another only together count too. (A rule
// that took more than a bounded number of steps to judge is left out.)
func Shadowed(before, rules []Rule) []Shadow {
	var found []Shadow
	c := cover{before: len(before), left: shadowAll}
	for _, list := range [][]Rule{before, rules} {
		for i := range list {
			c.boxes, c.allows = append(c.boxes, boxes(&list[i])), append(c.allows, list[i].Action == Allow)
		}
	}
	for i := range rules {
		c.used, c.work, c.end = map[int]bool{}, shadowWork, len(before)+i
		if slices.ContainsFunc(c.boxes[c.end], func(b box) bool { return !c.covers(b, 0) }) {
			continue
		}
		found = append(found, Shadow{Rule: i, By: slices.Sorted(maps.Keys(c.used))})
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

// cover is the question whether rules decide about every packet of another.
type cover struct {
	boxes  [][]box // of each rule
	allows []bool  // of each rule: its action
	before int     // how many are of the chain before: what these allow goes on to the others
	end    int     // the rules that count
	used   map[int]bool
	work   int
	left   int // of the work for all
}

// covers reports whether every packet of b is decided about by one of the rules,
// from the given one on, and notes which. Where no rule takes b as a whole
// (of the chain before that would not be enough), what the first takes of it is cut off, and what is left goes on to the next.
func (c *cover) covers(b box, from int) bool {
	for i := max(from, c.before); i < c.end; i++ {
		c.work, c.left = c.work-1, c.left-1
		if slices.ContainsFunc(c.boxes[i], b.within) {
			c.used[i] = true
			return true
		}
	}
	for i := from; i < c.end; i++ {
		for _, other := range c.boxes[i] {
			c.work, c.left = c.work-1, c.left-1
			if c.work < 0 || c.left < 0 {
				return false
			}
			rest, common, overlaps := b.without(other)
			if !overlaps {
				continue
			}
			if c.passes(i) {
				if !c.covers(common, c.before) {
					return false
				}
			} else {
				c.used[i] = true
			}
			for _, piece := range rest {
				// The same rule again: it may have more boxes.
				if !c.covers(piece, i) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// passes says that what a rule matches goes on to the other chain.
func (c *cover) passes(i int) bool { return i < c.before && c.allows[i] }

// within reports whether all of b is in other.
func (b box) within(other box) bool {
	return other.src.Bits() <= b.src.Bits() && other.src.Contains(b.src.Addr()) &&
		other.dst.Bits() <= b.dst.Bits() && other.dst.Contains(b.dst.Addr()) &&
		b.proto.and(other.proto) == b.proto && b.port.and(other.port) == b.port
}

// without cuts other off b and returns the rest, in pieces, and what they have
// in common; false when that is nothing.
func (b box) without(other box) (rest []box, common box, overlaps bool) {
	if !b.src.Overlaps(other.src) || !b.dst.Overlaps(other.dst) || !b.proto.meets(other.proto) || !b.port.meets(other.port) {
		return nil, box{}, false
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
	b.port = b.port.and(other.port)
	return rest, b, true
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
