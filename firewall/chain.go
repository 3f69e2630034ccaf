package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Chain is a compiled, immutable list of rules: the first that matches
// decides. It counts the hits of each rule and is safe for concurrent use.
//
// The rules are kept once for each family, as masked integers: that is several
// times as fast as netip.Prefix.Contains (see the benchmark), and a rule of
// one family cannot match a packet of the other, IPv4-mapped IPv6 included.
type Chain struct {
	rules []Rule
	hits  []*atomic.Uint64 // perhaps another chain's too, see Resume
	v4    []matcher4
	v6    []matcher6
}

type matcher4 struct {
	src, srcMask, dst, dstMask uint32
	tail
}

type matcher6 struct {
	src, srcMask, dst, dstMask bits128
	tail
}

// tail is what a rule asks beyond addresses, and where it came from.
type tail struct {
	ports  []PortRange
	index  int
	proto  uint8
	action Action
}

type bits128 struct{ hi, lo uint64 }

// NewChain compiles rules, in their order. It copies them. An action that is
// none of ours denies.
func NewChain(rules []Rule) *Chain {
	c := &Chain{rules: slices.Clone(rules), hits: make([]*atomic.Uint64, len(rules))}
	hits := make([]atomic.Uint64, len(rules))
	for i := range c.rules {
		c.hits[i] = &hits[i]
		r := &c.rules[i]
		r.Ports = slices.Clone(r.Ports)
		t := tail{ports: r.Ports, index: i, proto: r.Proto, action: r.Action}
		if t.action > Reject {
			t.action = Deny
		}
		if in4(r.Src) && in4(r.Dst) {
			m := matcher4{tail: t}
			m.src, m.srcMask = compile4(r.Src)
			m.dst, m.dstMask = compile4(r.Dst)
			c.v4 = append(c.v4, m)
		}
		if in6(r.Src) && in6(r.Dst) {
			m := matcher6{tail: t}
			m.src, m.srcMask = compile6(r.Src)
			m.dst, m.dstMask = compile6(r.Dst)
			c.v6 = append(c.v6, m)
		}
	}
	return c
}

// Verdict returns the action of the first rule that matches f and its index
// in the slice given to NewChain; Allow and -1 when none does. A nil Chain
// allows everything. It does not allocate.
//
// A rule with ports that denies or rejects also matches a packet of its
// protocol whose ports are not known (HasPorts is false); one that allows does
// not. A flow whose addresses are not of one family is no packet: Deny and -1.
func (c *Chain) Verdict(f *Flow) (Action, int) {
	if c == nil {
		return Allow, -1
	}
	var t *tail
	switch {
	case f.Src.Is4() && f.Dst.Is4():
		t = c.match4(f)
	case f.Src.Is6() && f.Dst.Is6():
		t = c.match6(f)
	default:
		return Deny, -1
	}
	if t == nil {
		return Allow, -1
	}
	c.hits[t.index].Add(1)
	return t.action, t.index
}

func (c *Chain) match4(f *Flow) *tail {
	src, dst := load4(f.Src), load4(f.Dst)
	for i := range c.v4 {
		m := &c.v4[i]
		if src&m.srcMask == m.src && dst&m.dstMask == m.dst && m.matches(f) {
			return &m.tail
		}
	}
	return nil
}

func (c *Chain) match6(f *Flow) *tail {
	src, dst := load6(f.Src), load6(f.Dst)
	for i := range c.v6 {
		m := &c.v6[i]
		if src.and(m.srcMask) == m.src && dst.and(m.dstMask) == m.dst && m.matches(f) {
			return &m.tail
		}
	}
	return nil
}

func (t *tail) matches(f *Flow) bool {
	if t.proto != 0 && t.proto != f.Proto {
		return false
	}
	if len(t.ports) == 0 {
		return true
	}
	if !f.HasPorts {
		return t.action != Allow
	}
	for _, p := range t.ports {
		if p.First <= f.DstPort && f.DstPort <= p.Last {
			return true
		}
	}
	return false
}

// Rules returns the rules of the chain, in order. The caller must not change them.
func (c *Chain) Rules() []Rule {
	if c == nil {
		return nil
	}
	return c.rules
}

// Resume has the rules of c that were in another chain too go on with its
// counters. Where a rule stands does not count; of several that are the same the
// first goes on as the first. Call it before c is asked anything.
func (c *Chain) Resume(before *Chain) {
	if c == nil || before == nil {
		return
	}
	counters := make(map[string][]*atomic.Uint64, len(before.rules))
	for i := range before.rules {
		text := before.rules[i].String()
		counters[text] = append(counters[text], before.hits[i])
	}
	for i := range c.rules {
		text := c.rules[i].String()
		if left := counters[text]; len(left) > 0 {
			c.hits[i], counters[text] = left[0], left[1:]
		}
	}
}

// Hits returns how often rule i decided. It panics if there is no rule i.
func (c *Chain) Hits(i int) uint64 { return c.hits[i].Load() }

// HitsSnapshot returns Hits of every rule, in their order. The counters are
// read one after the other while packets go on.
func (c *Chain) HitsSnapshot() []uint64 {
	if c == nil {
		return nil
	}
	hits := make([]uint64, len(c.hits))
	for i := range c.hits {
		hits[i] = c.hits[i].Load()
	}
	return hits
}

// in4 and in6 report whether p, or any, has addresses of the family.
func in4(p netip.Prefix) bool { return !p.IsValid() || p.Addr().Is4() }
func in6(p netip.Prefix) bool { return !p.IsValid() || p.Addr().Is6() }

func compile4(p netip.Prefix) (addr, mask uint32) {
	if !p.IsValid() {
		return 0, 0
	}
	mask = ^uint32(0) << (32 - p.Bits()) // a shift by 32 gives 0 in Go
	return load4(p.Addr()) & mask, mask
}

func compile6(p netip.Prefix) (addr, mask bits128) {
	if !p.IsValid() {
		return addr, mask
	}
	mask.hi = ^uint64(0) << (64 - min(p.Bits(), 64))
	mask.lo = ^uint64(0) << (128 - max(p.Bits(), 64))
	return load6(p.Addr()).and(mask), mask
}

func load4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func load6(a netip.Addr) bits128 {
	b := a.As16()
	return bits128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a bits128) and(b bits128) bits128 { return bits128{a.hi & b.hi, a.lo & b.lo} }
