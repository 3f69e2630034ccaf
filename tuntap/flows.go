package tuntap

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"fiefdom/firewall"
)

const (
	flowSlots    = 512 // a peer's; the oldest of four gives way
	flowWays     = 4
	flowLifetime = 180 * time.Second
)

// flowKey is a UDP flow as the answer to it is addressed. Addresses are
// bytes, not netip.Addr: those hold a pointer, which hashing is slow with.
type flowKey struct {
	local, remote         [16]byte
	localPort, remotePort uint16
}

// flows is the bounded table of UDP flows that came in to one peer. It is
// never swept: a slot is free when its time is over.
//
// Every shard that has a sender writes to it, and the peer's own reads it,
// without locks: a slot is two words, and all that can happen between them is
// that of two flows which take one slot at once only one is remembered.
type flows struct {
	slot [flowSlots]struct {
		tag   atomic.Uint64 // the flow's hash, of 64 bits and with a seed: nobody can aim at another's
		until atomic.Int64  // the shards' clock
	}
}

var hashSeed = maphash.MakeSeed()

func bits16(a netip.Addr) [16]byte { return a.As16() }

// came notes a flow by the packet that came in, or refreshes it.
func (t *flows) came(f *firewall.Flow, now int64) {
	tag := flowKey{bits16(f.Dst), bits16(f.Src), f.DstPort, f.SrcPort}.tag()
	set := flowSet(tag)
	oldest, least := set, int64(math.MaxInt64)
	for i := set; i < set+flowWays; i++ {
		if t.slot[i].tag.Load() == tag {
			t.slot[i].until.Store(now + int64(flowLifetime))
			return
		}
		if until := t.slot[i].until.Load(); until < least {
			oldest, least = i, until
		}
	}
	s := &t.slot[oldest]
	s.until.Store(0) // the new tag never has the old one's time
	s.tag.Store(tag)
	s.until.Store(now + int64(flowLifetime))
}

// answers reports whether a packet that goes out answers a flow, and
// refreshes that.
func (t *flows) answers(f *firewall.Flow, now int64) bool {
	tag := flowKey{bits16(f.Src), bits16(f.Dst), f.SrcPort, f.DstPort}.tag()
	set := flowSet(tag)
	for i := set; i < set+flowWays; i++ {
		s := &t.slot[i]
		// Looked at twice, so that the time is this tag's.
		if s.tag.Load() == tag && s.until.Load() > now && s.tag.Load() == tag {
			s.until.Store(now + int64(flowLifetime))
			return true
		}
	}
	return false
}

func (k flowKey) tag() uint64 { return maphash.Comparable(hashSeed, k) }

func flowSet(tag uint64) int { return int(tag%(flowSlots/flowWays)) * flowWays }
