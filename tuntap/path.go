package tuntap

import "fiefdom/firewall"

// verdict is what was decided about a packet. With more than four fields the
// compiler would keep it in memory, which made a decision half as long again.
type verdict struct {
	why  Reason         // pass, or why it is dropped
	how  manner         // of a drop
	rule *firewall.Rule // that decided, if one did
	to   *farEnd        // where it leaves by the gateway; nil: it goes by the table
}

// manner is what else is done about a packet that is dropped.
type manner uint8

const (
	logged   manner = iota
	rejected        // and answered
	quiet           // no log line: everybody's kernel sends such packets
)

func drop(why Reason) verdict { return verdict{why: why} }

// nobody is what becomes of a packet for an address of the pool that nobody
// has: its sender is told, and need not wait for a timeout.
var nobody = verdict{why: DropNoRoute, how: rejected}

// outward decides about a packet that p sent, all its way. The peer is who gets
// it, or whose half dropped it; nil: it is for the host, or a far end, or came
// no farther than the first half.
func (n *network) outward(p *peer, pk *packet, pol *policy, now int64) (verdict, *peer) {
	v := n.fromPeer(p, pk, pol, now)
	if v.why != pass || v.to != nil {
		return v, nil
	}
	to := n.table.Load().owner(pk.flow.Dst)
	pk.trace.routed(to)
	switch to.kind {
	case ownerPool:
		return nobody, nil
	case ownerNever:
		return drop(DropForbidden), nil
	case ownerPeer:
		if pol.cfg.Direct {
			return n.towards(to.peer, pk, pol, &p.sent[firewall.In], now), to.peer
		}
	case ownerNames:
		if !p.mayAsk(pk, pol.cfg.NamesAt, now) {
			return drop(DropRate), nil
		}
	}
	return v, nil
}

// inward decides about a packet that the host sent, as outward does.
func (n *network) inward(pk *packet, pol *policy, now int64) (verdict, *peer) {
	to := n.table.Load().owner(pk.flow.Dst)
	pk.trace.routed(to)
	switch to.kind {
	case ownerPool:
		return nobody, nil
	case ownerPeer:
		return n.towards(to.peer, pk, pol, &to.peer.came, now), to.peer
	}
	// Not even of the pool: the host's own chatter (MLD, mDNS).
	return verdict{why: DropNoRoute, how: quiet}, nil
}

// fromPeer decides about a packet that p sent: the first half of a packet's
// way (see the package's picture). It registers p's address where due. Only p's
// own shard comes here. One policy decides about the whole way.
func (n *network) fromPeer(p *peer, pk *packet, pol *policy, now int64) verdict {
	m := &p.sent[firewall.Out]
	if chatter(pk) || pk.v6 && !pol.own[1].IsValid() {
		pk.trace.at(placeForm, DropForbidden)
		return verdict{why: DropForbidden, how: quiet}
	}
	owned := n.table.Load().owner(pk.flow.Src).peer == p
	if !owned {
		wish, why := n.claim(p, pk.flow.Src)
		if why == pass && wish.declared {
			owned = true
			wish, why = n.register(p, pk.flow.Src)
		}
		pk.trace.claimed(wish, why)
		if why != pass {
			n.refuse(p, pk.flow.Src, why, wish.holder, now)
			return drop(why)
		}
	}
	if pk.part == laterPart {
		if !owned {
			return drop(DropUnregistered)
		}
		v := m.follow(pk, now)
		if v.why == pass && n.gateway != nil {
			v, _ = n.elsewhere(p, pol, pk)
		}
		return v
	}

	i := -1
	if c := pol.chain[firewall.Out]; c != nil {
		var act firewall.Action
		act, i = m.ask(c, pk)
		pk.trace.asked(firewall.Out, nil, c, act, i)
		if act != firewall.Allow {
			return byRule(c, act, i)
		}
	}
	if !owned {
		if wish, why := n.register(p, pk.flow.Src); why != pass {
			n.refuse(p, pk.flow.Src, why, wish.holder, now)
			return drop(why)
		}
	}
	if v := p.ownRules(firewall.Out, pk, m); v.why != pass {
		return v
	}
	var v verdict
	named := false
	if n.gateway != nil {
		v, named = n.elsewhere(p, pol, pk)
		pk.trace.at(placeGateway, v.why)
		if v.why != pass {
			return v
		}
	}
	// Isolate is the end of the out chain: a rule that allows, or a route, was before it.
	if i < 0 && !named && pol.walls != nil {
		walled := pol.walls.denies(p, pk, now)
		pk.trace.walled(walled)
		if walled {
			return drop(DropIsolate)
		}
	}
	if pk.part == firstPart {
		m.passed(pk, now)
	}
	return v
}

// towards decides about a packet that is to reach p: the second half. m is the
// sender's memory of such packets; what the host sent is remembered with p.
func (n *network) towards(p *peer, pk *packet, pol *policy, m *memory, now int64) verdict {
	if pk.part == laterPart {
		return m.follow(pk, now)
	}
	if c := pol.chain[firewall.In]; c != nil {
		act, i := m.ask(c, pk)
		pk.trace.asked(firewall.In, nil, c, act, i)
		if act != firewall.Allow {
			return byRule(c, act, i)
		}
	}
	if v := p.ownRules(firewall.In, pk, m); v.why != pass {
		return v
	}
	if pk.part == firstPart {
		m.passed(pk, now)
	}
	if pol.walls != nil {
		pol.walls.note(p, pk, now)
	}
	return verdict{}
}

// ownRules asks the peer's own rules: those of its ini and those that its
// device sent.
func (p *peer) ownRules(dir firewall.Direction, pk *packet, m *memory) verdict {
	if c := p.own.Load().of(dir); c != nil {
		act, i := m.ask(c, pk)
		pk.trace.asked(dir, p, c, act, i)
		if act != firewall.Allow {
			return byRule(c, act, i)
		}
	}
	if b := p.block.Load(); b != nil && b.denies(dir, &pk.flow, p.net.gateway != nil) {
		pk.trace.at(placeBlock, DropRule)
		return drop(DropRule)
	}
	return verdict{}
}

func byRule(c *firewall.Chain, act firewall.Action, i int) verdict {
	v := verdict{why: DropRule}
	if act == firewall.Reject {
		v.how = rejected
	}
	if i >= 0 {
		v.rule = &c.Rules()[i]
	}
	return v
}

// chatter reports whether a packet from a vassal is of those that never pass a
// router: link-local and multicast IPv6, neighbour and router discovery,
// multicast listener reports, and redirects of both families.
func chatter(pk *packet) bool {
	typ, icmp := pk.icmpType()
	if !pk.v6 {
		return icmp && typ == icmpRedirect && pk.part != laterPart
	}
	src, dst := pk.flow.Src, pk.flow.Dst
	if src.IsUnspecified() || src.IsLinkLocalUnicast() || dst.IsMulticast() || dst.IsLinkLocalUnicast() {
		return true
	}
	// RFC 2710, 4861, 3122, 3810, 3971, 4286: 130 to 137, 141 to 143, 148 to 153.
	return icmp && (typ >= 130 && typ <= 137 || typ >= 141 && typ <= 143 || typ >= 148 && typ <= 153)
}
