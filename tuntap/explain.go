package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"fiefdom/firewall"
)

// Query asks what would become of a packet that begins something: a TCP SYN,
// an echo, a datagram.
type Query struct {
	Vassal    string             `json:"vassal"`
	Network   string             `json:"network,omitempty"` // empty: the vassal has devices in one only
	Direction firewall.Direction `json:"direction"`
	Proto     uint8              `json:"proto"`
	Addr      netip.Addr         `json:"addr"`           // the other end
	Port      uint16             `json:"port,omitempty"` // of the destination
	From      netip.Addr         `json:"from,omitzero"`  // a source that is not the vassal's own; out only
}

// Explanation says what would become of a packet, and why. The schema is
// stable: fields are only added.
type Explanation struct {
	Vassal    string             `json:"vassal"`
	Network   string             `json:"network"`
	Direction firewall.Direction `json:"direction"`
	Proto     string             `json:"proto"`
	Src       netip.Addr         `json:"src"`
	Dst       netip.Addr         `json:"dst"`
	Port      uint16             `json:"port,omitempty"` // of the destination
	Verdict   string             `json:"verdict"`        // allow, deny or reject
	Reason    string             `json:"reason,omitempty"`
	Rule      *RulePlace         `json:"rule,omitempty"` // that dropped it, or let it pass where a rule did
	To        string             `json:"to,omitempty"`   // who gets it
	Steps     []Step             `json:"steps"`
	Changes   []Change           `json:"changes,omitempty"` // all of them together turn the verdict
	Advice    string             `json:"advice,omitempty"`  // where no line does
	Seen      *DropExample       `json:"seen,omitempty"`    // such drops that happened
}

// RulePlace is a rule and where it is written.
type RulePlace struct {
	Text string `json:"text"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Step is one decision on the packet's way.
type Step struct {
	Name   string       `json:"name"`             // form, source, chain out, rules out, device rules, gateway, isolate, table, host, chain in, rules in
	Vassal string       `json:"vassal,omitempty"` // whose rules
	Result string       `json:"result"`           // pass, or allow, deny, reject
	Why    string       `json:"why,omitempty"`
	About  string       `json:"about,omitempty"` // the vassal that Why names
	Rules  []Considered `json:"rules,omitempty"` // up to the one that decided
}

// Considered is a rule that was looked at.
type Considered struct {
	Number int    `json:"number"` // from 1
	Hit    bool   `json:"hit"`
	Why    string `json:"why,omitempty"` // it does not match
	RulePlace
}

// Change is a line to write.
type Change struct {
	Text   string `json:"text"`           // option = value
	File   string `json:"file,omitempty"` // empty: the emperor's ini
	Line   int    `json:"line,omitempty"`
	Before bool   `json:"before"` // before the line, else after it

	Number int `json:"number,omitempty"` // File is unsaved: of the rule there that it comes before; no line does
}

// Explain says what would become of a packet if it came now, and what to write
// to change that. Nothing is changed, counted or sent by it.
func (r *Router) Explain(q Query) (*Explanation, error) {
	x, err := r.newQuestion(q)
	if err != nil {
		return nil, err
	}
	rep := newReplica(x.net, x.cfg, x.peers)
	o := rep.try(rep.of[x.from], x.raw)
	e := x.describe(&o)
	e.Changes = x.changes(rep, &o)
	if !o.passed() && len(e.Changes) == 0 {
		e.Advice = x.advice(&o)
	}
	e.Seen = x.seen(rep, &o)
	return e, nil
}

// question is a Query with what it is about.
type question struct {
	Query
	net      *network
	cfg      NetworkConfig
	peers    []*peer // of the network
	peer     *peer   // the vassal's
	from     *peer   // who sends the packet; nil: the host
	src, dst netip.Addr
	raw      []byte
}

func (r *Router) newQuestion(q Query) (*question, error) {
	x := &question{Query: q}
	if q.Vassal == "" {
		return nil, errors.New("whose packet? name a vassal")
	}
	if !q.Addr.IsValid() || q.From.IsValid() && q.From.Is4() != q.Addr.Is4() {
		return nil, fmt.Errorf("a packet has two addresses of one family, not %s and %s", q.From, q.Addr)
	}
	if err := x.find(r); err != nil {
		return nil, err
	}
	x.cfg = x.net.policy.Load().cfg
	own := x.own()
	if q.Direction == firewall.Out && q.From.IsValid() {
		own = q.From
	}
	if !own.IsValid() {
		return nil, fmt.Errorf("vassal %q has no address of the family of %s; is it running?", q.Vassal, q.Addr)
	}
	x.from, x.src, x.dst = x.peer, own, q.Addr
	if q.Direction == firewall.In {
		x.src, x.dst = q.Addr, own
		x.from = x.net.table.Load().owner(q.Addr).peer
		if !slices.Contains(x.peers, x.from) {
			x.from = nil
		}
	}
	x.raw = firstPacket(x.src, x.dst, q.Proto, q.Port)
	return x, nil
}

// find looks for the vassal's peer: in all networks, or in the one that is
// named. One with an address of the other end's family comes first.
func (x *question) find(r *Router) error {
	r.view.Lock()
	defer r.view.Unlock()
	for _, n := range r.networks {
		if x.Network != "" && n.name != x.Network {
			continue
		}
		for _, p := range n.peers {
			if p.public.Load().vassal != x.Vassal {
				continue
			}
			better := x.peer == nil || !x.own().IsValid()
			if !better && n != x.net {
				return fmt.Errorf("vassal %q has devices in networks %s and %s; choose one", x.Vassal, x.net.name, n.name)
			}
			if better {
				x.net, x.peer = n, p
			}
		}
	}
	if x.peer == nil {
		return fmt.Errorf("vassal %q has no device in the router now; is it running?", x.Vassal)
	}
	x.peers = slices.Clone(x.net.peers)
	return nil
}

// own is the vassal's address of the other end's family: the one that it
// registered, else one that it may.
func (x *question) own() netip.Addr {
	h := x.peer.holds.Load()
	for _, a := range h.addrs {
		if a.Is4() == x.Addr.Is4() {
			return a
		}
	}
	for _, pfx := range h.may {
		if pfx.Addr().Is4() == x.Addr.Is4() {
			return pfx.Addr()
		}
	}
	return netip.Addr{}
}
