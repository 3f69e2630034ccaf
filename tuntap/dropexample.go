package tuntap

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fiefdom/firewall"
)

// DropExample is one kind of drops that happened to a peer: the same reason, by
// the same rule. The packet is the last one of them.
type DropExample struct {
	Reason Reason             `json:"reason"`
	Rule   *RulePlace         `json:"rule,omitempty"`
	Count  uint64             `json:"count"`
	Last   time.Time          `json:"last"`
	Way    firewall.Direction `json:"direction"` // in: the packet was for the peer
	Proto  string             `json:"proto,omitempty"`
	Src    netip.Addr         `json:"src,omitzero"`
	Dst    netip.Addr         `json:"dst,omitzero"`
	Port   uint16             `json:"port,omitempty"` // of the destination
}

// PeerDrops are the drops of one of a vassal's peers.
type PeerDrops struct {
	Network string            `json:"network"`
	Drops   []DropExample     `json:"drops"`            // the latest first
	Others  map[Reason]uint64 `json:"others,omitempty"` // of which nothing more is known: there was no room, or they are everybody's (link-local chatter)
}

// dropKinds bounds what is kept of one peer's drops: the kind that was seen
// least lately gives way.
const dropKinds = 16

// dropKind is a kind of drops. It holds copies: a rule of a chain that was
// replaced should not keep the chain.
type dropKind struct {
	why   Reason
	ruled bool
	rule  firewall.Rule
	count uint64
	last  int64 // the shards' clock
	flow  firewall.Flow
}

// dropBook keeps examples of a peer's drops; made at the first of them. Any
// shard may write to it, and none waits for another: who comes in between
// leaves no example.
type dropBook struct {
	mu    sync.Mutex
	kinds [dropKinds]dropKind
}

// keep notes a drop. It allocates once in a peer's life.
func (b *dropBook) keep(pk *packet, v *verdict, now int64) {
	if !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	at := 0
	for i := range b.kinds {
		k := &b.kinds[i]
		if k.why == v.why && k.ruled == (v.rule != nil) && (v.rule == nil || k.rule.Line == v.rule.Line && k.rule.File == v.rule.File) {
			k.count++
			if k.last != now { // in a flood the first of each turn will do
				k.last, k.flow = now, pk.flow
			}
			return
		}
		if k.last < b.kinds[at].last {
			at = i
		}
	}
	k := &b.kinds[at]
	*k = dropKind{why: v.why, count: 1, last: now, flow: pk.flow}
	if v.rule != nil {
		k.ruled, k.rule = true, *v.rule
	}
}

// bookOf returns the book in its place, made now if there is none.
func bookOf(place *atomic.Pointer[dropBook]) *dropBook {
	b := place.Load()
	if b == nil {
		place.CompareAndSwap(nil, new(dropBook)) // another shard may have been first
		b = place.Load()
	}
	return b
}

// examples are the kinds that were seen, the latest first. start is when the
// shards' clock began.
func (b *dropBook) examples(h *holding, start time.Time) []DropExample {
	list := []DropExample{}
	if b == nil {
		return list
	}
	b.mu.Lock()
	kinds := b.kinds
	b.mu.Unlock()
	for i := range kinds {
		k := &kinds[i]
		if k.count == 0 {
			continue
		}
		e := DropExample{
			Reason: k.why, Count: k.count, Last: start.Add(time.Duration(k.last)), Src: k.flow.Src, Dst: k.flow.Dst, Port: k.flow.DstPort,
		}
		if k.ruled {
			place := placeOf(&k.rule)
			e.Rule = &place
		}
		if k.flow.Dst.IsValid() {
			e.Proto = firewall.ProtoText(k.flow.Proto)
		}
		if containsAddr(h.prefixes, k.flow.Dst) {
			e.Way = firewall.In
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b DropExample) int { return b.Last.Compare(a.Last) })
	return list
}

// LastDrops tells of the drops of a vassal's peers: all that its packets, and
// those for it, have come to since its device was handed over.
func (r *Router) LastDrops(vassal string) []PeerDrops {
	start := r.shards[0].start
	all := []PeerDrops{}
	r.view.Lock()
	defer r.view.Unlock()
	for _, n := range r.networks {
		for _, p := range n.peers {
			if p.public.Load().vassal != vassal {
				continue
			}
			d := PeerDrops{Network: n.name, Drops: p.book.Load().examples(p.holds.Load(), start)}
			others := p.drops.snapshot()
			for _, e := range d.Drops {
				if others[e.Reason] -= min(others[e.Reason], e.Count); others[e.Reason] == 0 {
					delete(others, e.Reason)
				}
			}
			d.Others = others
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b PeerDrops) int { return strings.Compare(a.Network, b.Network) })
	return all
}

// seen are drops that happened as an outcome says, of the peer that they are
// counted for.
func (x *question) seen(rep *replica, o *outcome) *DropExample {
	if o.passed() {
		return nil
	}
	p := x.from
	if o.to != nil {
		p = rep.real(o.to)
	}
	if p == nil {
		return nil
	}
	for _, e := range p.book.Load().examples(p.holds.Load(), p.net.r.shards[0].start) {
		same := e.Reason == o.why && (e.Rule == nil) == (o.rule == nil)
		if same && (o.rule == nil || e.Rule.File == o.rule.File && e.Rule.Line == o.rule.Line) {
			return &e
		}
	}
	return nil
}
