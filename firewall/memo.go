package firewall

import "net/netip"

// Memo remembers the verdicts of chains by flow, so that a long chain is
// walked once a flow and not once a packet. It is bounded: flows that meet in
// a slot forget each other. A chain never changes, and another chain is
// another key, so nothing goes stale. It belongs to one goroutine.
type Memo struct {
	slots [memoSlots]memoSlot
}

const memoSlots = 64 // 96 bytes each

type memoSlot struct {
	chain  *Chain
	flow   Flow
	index  int32
	action Action
}

// WorthMemo says that a chain is so long that looking a flow up costs less
// than asking the chain (measured: BenchmarkMemo).
func (c *Chain) WorthMemo() bool { return c != nil && len(c.rules) >= memoFrom }

const memoFrom = 32

// Verdict is c's, with the hit counted. It does not allocate.
func (m *Memo) Verdict(c *Chain, f *Flow) (Action, int) {
	s := &m.slots[memoHash(c, f)%memoSlots]
	if s.chain == c && s.flow == *f {
		if s.index >= 0 {
			c.hits[s.index].Add(1)
		}
		return s.action, int(s.index)
	}
	action, index := c.Verdict(f)
	*s = memoSlot{chain: c, flow: *f, index: int32(index), action: action}
	return action, index
}

// memoHash mixes what tells flows apart. It need not resist anybody: whoever
// makes flows meet pays for the chain himself.
func memoHash(c *Chain, f *Flow) uint64 {
	const mix = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio
	h := uint64(len(c.rules))<<48 | uint64(f.Proto)<<32 | uint64(f.SrcPort)<<16 | uint64(f.DstPort)
	h = (h ^ lowBits(f.Src)) * mix
	h = (h ^ lowBits(f.Dst)) * mix
	return h >> 32
}

func lowBits(a netip.Addr) uint64 {
	if a.Is4() {
		return uint64(load4(a))
	}
	b := load6(a)
	return b.hi ^ b.lo
}
