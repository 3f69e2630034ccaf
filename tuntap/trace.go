package tuntap

import "fiefdom/firewall"

// place is where on a packet's way something was decided.
type place uint8

const (
	placeForm    place = iota // link-local chatter, IPv6 where there is none
	placeSource               // may the peer have the source
	placeChain                // the network's rules, or with a peer its own
	placeBlock                // the rules that a device sent
	placeGateway              // does it leave by the gateway
	placeIsolate
	placeTable // whose is the destination
)

// mark is one decision, as the code that took it tells.
type mark struct {
	place place
	why   Reason // pass, or why the packet goes no farther
	claim *claim // of placeSource: the peer did not own the source yet

	dir   firewall.Direction // of placeChain, with all below
	peer  *peer              // nil: the network's
	chain *firewall.Chain
	act   firewall.Action
	index int // of the rule that decided; -1: none

	owner owner // of placeTable
}

// trace collects what is decided about one packet. The decisions tell it as
// they are taken, so that what it says can be nothing else. All packets but
// those of Explain have none, which costs them a comparison.
type trace struct{ marks []mark }

func (t *trace) at(where place, why Reason) {
	if t != nil {
		t.add(mark{place: where, why: why})
	}
}

func (t *trace) claimed(c claim, why Reason) {
	if t != nil {
		t.add(mark{place: placeSource, why: why, claim: &claim{c.prefix, c.declared, c.holder}})
	}
}

func (t *trace) asked(dir firewall.Direction, p *peer, c *firewall.Chain, act firewall.Action, index int) {
	if t != nil {
		t.add(mark{place: placeChain, dir: dir, peer: p, chain: c, act: act, index: index})
	}
}

func (t *trace) walled(denied bool) {
	if t != nil {
		m := mark{place: placeIsolate}
		if denied {
			m.why = DropIsolate
		}
		t.add(m)
	}
}

func (t *trace) routed(to owner) {
	if t != nil {
		t.add(mark{place: placeTable, owner: to})
	}
}

//go:noinline
func (t *trace) add(m mark) { t.marks = append(t.marks, m) }
