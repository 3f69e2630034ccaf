package tuntap

import (
	"fmt"
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

// claim judges whether p may register src. It changes nothing.
//
// DESIGN, section 5: the first valid packet registers its source; from then
// on only that pair is valid.
func (n *network) claim(p *peer, src netip.Addr) (claim, Reason) {
	c := claim{prefix: single(src)}
	if len(p.may) > 0 {
		i := slices.IndexFunc(p.may, func(pfx netip.Prefix) bool { return pfx.Contains(src) })
		if i < 0 {
			return n.stranger(p, src, c)
		}
		c.prefix, c.declared = p.may[i].Masked(), true
	} else if p.registered[family(src)] {
		return n.stranger(p, src, c)
	}
	pol := n.policy.Load()
	if pol.neverGiven(src) {
		return c, DropForbidden
	}
	if v := pol.cfg.Reserved[src]; v != "" && v != p.vassal {
		c.holder = v
		return c, DropForbidden
	}
	if holder := n.table.holder(c.prefix, p); holder != nil {
		c.holder = holder.vassal
		return c, DropTaken
	}
	return c, pass
}

// stranger refuses a source that can not be the peer's whoever else has it.
func (n *network) stranger(p *peer, src netip.Addr, c claim) (claim, Reason) {
	if p.registered[family(src)] {
		return c, DropSpoofed
	}
	if o := n.table.owner(src); o.kind == ownerPeer {
		c.holder = o.peer.vassal
		return c, DropTaken
	}
	return c, DropForbidden
}

// register makes the claimed prefix the peer's. addr is the address to tell.
func (n *network) register(p *peer, pfx netip.Prefix, addr netip.Addr) {
	if slices.Contains(p.prefixes, pfx) {
		return
	}
	n.table.Insert(pfx, owner{kind: ownerPeer, peer: p})
	p.prefixes, p.addrs = append(p.prefixes, pfx), append(p.addrs, addr)
	p.registered[family(addr)] = true
	p.publish()
	n.r.settled(p)
	if n.r.events.Registered != nil {
		n.r.events.Registered(n.name, p.vassal, addr)
	}
}

// refuse tells that p did not get addr, once a second at most.
func (n *network) refuse(p *peer, addr netip.Addr, why Reason, holder string) {
	if why == DropSpoofed || n.r.events.Refused == nil {
		return
	}
	now := n.r.now
	if p.refused != 0 && now-p.refused < refusalEvery {
		return
	}
	p.refused = now
	n.r.events.Refused(n.name, p.vassal, addr, why, holder)
}

// release frees the peer's addresses.
func (n *network) release(p *peer) {
	pool := n.policy.Load().cfg.Pool
	for _, pfx := range p.prefixes {
		if o, ok := n.table.Get(pfx); !ok || o.peer != p {
			continue
		}
		n.table.Delete(pfx)
		if slices.ContainsFunc(pool, func(q netip.Prefix) bool { return q.Masked() == pfx }) {
			n.table.Insert(pfx, owner{kind: ownerPool}) // a grant of the whole pool stood in its place
		}
	}
	p.prefixes, p.addrs = nil, nil
}

// giveBack registers what a vassal had before the router was started again:
// all of it or, when an address is not to be had, nothing.
func (n *network) giveBack(p *peer, addrs []netip.Addr) error {
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
		n.register(p, prefixes[i], a)
	}
	return nil
}
