package tuntap

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// refusalEvery bounds the Refused events of one peer.
const refusalEvery = int64(time.Second)

// claim is a peer's wish to own the source of a packet.
type claim struct {
	prefix   netip.Prefix
	declared bool   // for this vassal: it registers whatever the chains say
	holder   string // who has it or declares it, when refused
}

// claim judges whether p may register src. It changes nothing and needs no
// lock: what it lets pass is judged again by register.
//
// DESIGN, section 5: the first valid packet registers its source; from then
// on only that pair is valid.
func (n *network) claim(p *peer, src netip.Addr) (claim, Reason) {
	c, h := claim{prefix: single(src)}, p.holds.Load()
	if len(h.may) > 0 {
		i := slices.IndexFunc(h.may, func(pfx netip.Prefix) bool { return pfx.Contains(src) })
		if i < 0 {
			return n.stranger(h, src, c)
		}
		c.prefix, c.declared = h.may[i].Masked(), true
	} else if h.registered[family(src)] {
		return n.stranger(h, src, c)
	}
	pol := n.policy.Load()
	if pol.neverGiven(src) {
		return c, DropForbidden
	}
	if v := pol.cfg.Reserved[src]; v != "" && v != p.vassal {
		c.holder = v
		return c, DropForbidden
	}
	if holder := n.table.Load().holder(c.prefix, p); holder != nil {
		c.holder = holder.vassal
		return c, DropTaken
	}
	return c, pass
}

// stranger refuses a source that can not be the peer's whoever else has it.
func (n *network) stranger(h *holding, src netip.Addr, c claim) (claim, Reason) {
	if h.registered[family(src)] {
		return c, DropSpoofed
	}
	if o := n.table.Load().owner(src); o.kind == ownerPeer {
		c.holder = o.peer.vassal
		return c, DropTaken
	}
	return c, DropForbidden
}

// register makes src, or the prefix that it is of, the peer's.
func (n *network) register(p *peer, src netip.Addr) (claim, Reason) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, why := n.claim(p, src)
	if p.gone.Load() {
		why = DropNotReady // what it sent before it was closed gives it nothing any more
	}
	if why == pass {
		n.give(p, c.prefix, src)
	}
	return c, why
}

// give is called with mu held. addr is the address to tell.
func (n *network) give(p *peer, pfx netip.Prefix, addr netip.Addr) {
	h := *p.holds.Load()
	if slices.Contains(h.prefixes, pfx) {
		return
	}
	h.prefixes, h.addrs = append(slices.Clip(h.prefixes), pfx), append(slices.Clip(h.addrs), addr)
	h.registered[family(addr)] = true
	p.holds.Store(&h)
	n.table.Store(n.table.Load().with(pfx, owner{kind: ownerPeer, peer: p}))
	n.r.settled(p)
	if n.r.events.Registered != nil {
		n.r.events.Registered(n.name, p.vassal, addr)
	}
}

// refuse tells that p did not get addr, once a second at most.
func (n *network) refuse(p *peer, addr netip.Addr, why Reason, holder string, now int64) {
	if why == DropSpoofed || why == DropNotReady || n.r.events.Refused == nil {
		return
	}
	if p.refused != 0 && now-p.refused < refusalEvery {
		return
	}
	p.refused = now
	n.r.events.Refused(n.name, p.vassal, addr, why, holder)
}

// release frees the peer's addresses for good: it is gone.
func (n *network) release(p *peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.gone.Store(true)
	pool := n.policy.Load().cfg.Pool
	h, t := p.holds.Load(), n.table.Load()
	for _, pfx := range h.prefixes {
		if o, ok := t.tree().Get(pfx); !ok || o.peer != p {
			continue
		}
		if slices.ContainsFunc(pool, func(q netip.Prefix) bool { return q.Masked() == pfx }) {
			t = t.with(pfx, owner{kind: ownerPool}) // a grant of the whole pool stood in its place
		} else {
			t = t.without(pfx)
		}
	}
	n.table.Store(t)
	p.holds.Store(&holding{may: h.may})
}

// giveBack registers what a vassal had before the router was started again:
// all of it or, when an address is not to be had, nothing.
func (n *network) giveBack(p *peer, addrs []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	prefixes := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		c, why := n.claim(p, a)
		switch {
		case why != pass && c.holder != "":
			return fmt.Errorf("address %s can not be given back: %s (vassal %s)", a, why, c.holder)
		case why != pass:
			return fmt.Errorf("address %s can not be given back: %s", a, why)
		}
		prefixes[i] = c.prefix
	}
	for i, a := range addrs {
		n.give(p, prefixes[i], a)
	}
	return nil
}

// allow says what p may register.
func (n *network) allow(p *peer, may []netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := *p.holds.Load()
	h.may = may
	p.holds.Store(&h)
}

// update brings a new policy, and fits the peers of the network to it.
func (n *network) update(pol *policy, peers []*peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range peers {
		n.adapt(p, pol)
	}
	pol.resume(n.policy.Load())
	n.policy.Store(pol)
	n.table.Store(newTable(&pol.cfg, peers))
}

// adapt fits what a peer holds to a new policy. Called with mu held.
func (n *network) adapt(p *peer, pol *policy) {
	h := *p.holds.Load()
	if !p.granted {
		h.may = pol.reservations(p.vassal)
	}
	kept := slices.DeleteFunc(slices.Clone(h.prefixes), func(pfx netip.Prefix) bool {
		return pfx.IsSingleIP() && slices.Contains(pol.cfg.Own, pfx.Addr())
	})
	if len(kept) < len(h.prefixes) {
		n.r.say(slog.LevelWarn, "address of a peer is the router's own now", slog.String("network", n.name), slog.String("vassal", p.vassal))
		h.prefixes, h.registered = kept, [2]bool{}
		h.addrs = slices.DeleteFunc(slices.Clone(h.addrs), func(a netip.Addr) bool { return slices.Contains(pol.cfg.Own, a) })
		for _, pfx := range kept {
			h.registered[family(pfx.Addr())] = true
		}
	}
	p.holds.Store(&h)
}
