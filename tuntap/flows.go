package tuntap

import (
	"hash/maphash"
	"net/netip"
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
type flows struct {
	slot [flowSlots]struct {
		key   flowKey
		until int64 // the loop's clock
	}
}

var hashSeed = maphash.MakeSeed()

func bits(a netip.Addr) [16]byte { return a.As16() }

// came notes a flow by the packet that came in, or refreshes it.
func (t *flows) came(f *firewall.Flow, now int64) {
	key := flowKey{bits(f.Dst), bits(f.Src), f.DstPort, f.SrcPort}
	set := t.set(key)
	oldest := set
	for i := set; i < set+flowWays; i++ {
		if t.slot[i].key == key {
			oldest = i
			break
		}
		if t.slot[i].until < t.slot[oldest].until {
			oldest = i
		}
	}
	t.slot[oldest].key = key
	t.slot[oldest].until = now + int64(flowLifetime)
}

// answers reports whether a packet that goes out answers a flow, and
// refreshes that.
func (t *flows) answers(f *firewall.Flow, now int64) bool {
	key := flowKey{bits(f.Src), bits(f.Dst), f.SrcPort, f.DstPort}
	set := t.set(key)
	for i := set; i < set+flowWays; i++ {
		if t.slot[i].key == key && t.slot[i].until > now {
			t.slot[i].until = now + int64(flowLifetime)
			return true
		}
	}
	return false
}

func (t *flows) set(key flowKey) int {
	return int(maphash.Comparable(hashSeed, key)%(flowSlots/flowWays)) * flowWays
}
