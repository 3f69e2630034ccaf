package tuntap

import (
	"hash/maphash"
	"time"
)

const (
	fragmentSlots    = 256
	fragmentWays     = 4
	fragmentLifetime = 30 * time.Second
)

// fragmentKey names a datagram (RFC 791, RFC 8200).
type fragmentKey struct {
	src, dst [16]byte
	id       uint32
	proto    uint8
}

// fragments remembers the first parts that were let through, for one sender and
// direction: later parts carry no ports and follow their first one. Bounded:
// the oldest of four gives way, so a flood hurts its own sender only.
type fragments struct {
	slot [fragmentSlots]struct {
		key   fragmentKey
		end   int   // of the first part's data
		until int64 // the shard's clock
	}
}

func keyOf(pk *packet) fragmentKey {
	k := fragmentKey{src: bits16(pk.flow.Src), dst: bits16(pk.flow.Dst), id: pk.fragID, proto: pk.flow.Proto}
	if pk.v6 {
		// RFC 8200: the protocol is not part of it; a first part names it after its other headers.
		k.proto = 0
	}
	return k
}

func (t *fragments) set(key fragmentKey) int {
	return int(maphash.Comparable(hashSeed, key)%(fragmentSlots/fragmentWays)) * fragmentWays
}

// passed notes a first part that was let through.
func (t *fragments) passed(pk *packet, now int64) {
	key := keyOf(pk)
	set := t.set(key)
	at := set
	for i := set; i < set+fragmentWays; i++ {
		if t.slot[i].key == key {
			at = i
			break
		}
		if t.slot[i].until < t.slot[at].until {
			at = i
		}
	}
	s := &t.slot[at]
	if s.key != key || s.until <= now {
		s.key, s.end = key, 0
	}
	s.end, s.until = max(s.end, pk.fragEnd), now+int64(fragmentLifetime)
}

// follows reports whether a later part belongs to a first one that was let
// through, and leaves alone what that one held.
func (t *fragments) follows(pk *packet, now int64) bool {
	key := keyOf(pk)
	set := t.set(key)
	for i := set; i < set+fragmentWays; i++ {
		if s := &t.slot[i]; s.key == key && s.until > now {
			return pk.fragStart >= s.end
		}
	}
	return false
}
