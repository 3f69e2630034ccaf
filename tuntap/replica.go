package tuntap

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"fiefdom/firewall"
)

// replica is a copy of a network to try packets on: the same code decides, by
// the same policy, with the same table and peers. What it counts, remembers,
// registers and tells is the copy's own.
type replica struct {
	net *network
	of  map[*peer]*peer // by the real one
}

// newReplica copies a network as it is now, but for its config, which is cfg.
func newReplica(n *network, cfg NetworkConfig, peers []*peer) *replica {
	c := &network{r: new(Router), name: n.name, gateway: n.gateway}
	rep := &replica{net: c, of: make(map[*peer]*peer, len(peers))}
	copies := make([]*peer, len(peers))
	for i, p := range peers {
		copies[i] = p.copyTo(c)
		rep.of[p] = copies[i]
	}
	c.policy.Store(newPolicy(cfg))
	c.table.Store(newTable(&cfg, copies))
	return rep
}

// real is the peer that one of the replica is a copy of.
func (rep *replica) real(c *peer) *peer {
	for p, q := range rep.of {
		if q == c {
			return p
		}
	}
	return nil
}

// copyTo copies what a peer may and has, and its rules. What other shards
// replace is read once, and never changes.
func (p *peer) copyTo(n *network) *peer {
	id := p.public.Load()
	c := &peer{net: n, vassal: id.vassal}
	if own := p.own.Load(); own != nil {
		copied := new(ownRules)
		for dir, chain := range own.chain {
			if chain != nil {
				copied.chain[dir] = firewall.NewChain(chain.Rules())
			}
		}
		if w := own.ways; w != nil {
			copied.ways = &ways{chain: firewall.NewChain(w.chain.Rules()), to: w.to}
		}
		c.own.Store(copied)
	}
	c.holds.Store(p.holds.Load())
	c.block.Store(p.block.Load())
	return c
}

// insert puts a rule of the peer's own before the i-th. Only a copy's rules change.
func (p *peer) insert(dir firewall.Direction, i int, rule firewall.Rule) {
	own := *p.own.Load()
	own.chain[dir] = firewall.NewChain(slices.Insert(slices.Clone(own.chain[dir].Rules()), i, rule))
	if own.ways != nil && dir == firewall.Out {
		own.ways = &ways{chain: own.chain[dir], to: slices.Insert(slices.Clone(own.ways.to), i, netip.AddrPort{})}
	}
	p.own.Store(&own)
}

// outcome is what became of a packet that was tried.
type outcome struct {
	verdict
	to    *peer // who gets it, or whose half dropped it
	out   []mark
	again bool   // through the host's kernel, and in again
	in    []mark // of the second half, if it came by the host
	flow  firewall.Flow
}

func (o *outcome) passed() bool { return o.why == pass }

// try sends a packet on its way: from a peer of the replica, or from the host
// where from is nil. Without tuntap-router-direct a packet for another peer
// leaves for the host's kernel and comes in again.
func (rep *replica) try(from *peer, raw []byte) (o outcome) {
	const now = 1
	pk, tr := new(packet), new(trace)
	if o.why = pk.decode(raw); o.why != pass {
		return o
	}
	pk.trace, o.flow = tr, pk.flow
	pol := rep.net.policy.Load()
	if from == nil {
		o.verdict, o.to = rep.net.inward(pk, pol, now)
		o.in = tr.marks
		return o
	}
	o.verdict, o.to = rep.net.outward(from, pk, pol, now)
	o.out = tr.marks
	owner := rep.net.table.Load().owner(pk.flow.Dst)
	if !o.passed() || o.to != nil || o.verdict.to != nil || owner.kind != ownerPeer {
		return o
	}
	o.again, tr.marks = true, nil
	o.verdict, o.to = rep.net.inward(pk, pol, now)
	o.in = tr.marks
	return o
}

// madeUpPort is the source port of packets that are made up: one of those that
// kernels choose.
const madeUpPort = 40000

// firstPacket makes the packet that begins what a question asks about: a TCP
// SYN, an echo, else a datagram.
func firstPacket(src, dst netip.Addr, proto uint8, port uint16) []byte {
	b := make([]byte, 40+20)
	head, l4 := 20, 20
	if src.Is6() {
		head = 40
	}
	body := b[head:]
	switch proto {
	case protoTCP:
		body[12], body[13] = 5<<4, tcpSYN
	case protoUDP:
		l4 = 8
		binary.BigEndian.PutUint16(body[4:], 8)
	case protoICMP:
		body[0], l4 = icmpEcho, 8
	case protoICMP6:
		body[0], l4 = icmp6Echo, 8
	}
	if firewall.HasPorts(proto) {
		binary.BigEndian.PutUint16(body, madeUpPort)
		binary.BigEndian.PutUint16(body[2:], port)
	}
	if src.Is6() {
		return b[:putIPv6(b, src, dst, proto, l4)]
	}
	return b[:putIPv4(b, src, dst, proto, l4)]
}
