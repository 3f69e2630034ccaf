package tuntap

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"fiefdom/firewall"
)

// describe puts an outcome into words.
func (x *question) describe(o *outcome) *Explanation {
	e := &Explanation{
		Vassal: x.Vassal, Network: x.net.name, Direction: x.Direction,
		Proto: firewall.ProtoText(x.Proto), Src: x.src, Dst: x.dst, Port: x.Port,
		Verdict: o.word(), Rule: o.rulePlace(), Steps: []Step{},
	}
	if !o.passed() {
		e.Reason = o.why.String()
	}
	if x.from != nil {
		e.Steps = append(e.Steps, x.firstSteps(o)...)
	}
	e.Steps = append(e.Steps, x.steps(o.out, o)...)
	if o.again {
		e.Steps = append(e.Steps, Step{Name: "host", Result: "pass", Why: "network " + x.net.name + " is not direct: the packet comes back if the host's own rules forward it"})
	}
	e.Steps = append(e.Steps, x.steps(o.in, o)...)
	switch {
	case !o.passed():
	case o.verdict.to != nil:
		e.To = "gateway " + o.verdict.to.addrPort().String()
	case o.to != nil:
		e.To = "vassal " + named(o.to)
	default:
		e.To = "the host"
	}
	return e
}

func (o *outcome) word() string {
	switch {
	case o.passed():
		return firewall.Allow.String()
	case o.how == rejected:
		return firewall.Reject.String()
	}
	return firewall.Deny.String()
}

// rulePlace is the rule that dropped the packet or, of those that let it pass,
// the last one.
func (o *outcome) rulePlace() *RulePlace {
	rule := o.rule
	if rule == nil && o.passed() {
		for _, list := range [][]mark{o.out, o.in} {
			for i := range list {
				if m := &list[i]; m.place == placeChain && m.index >= 0 {
					rule = &m.chain.Rules()[m.index]
				}
			}
		}
	}
	if rule == nil {
		return nil
	}
	place := placeOf(rule)
	return &place
}

func placeOf(r *firewall.Rule) RulePlace {
	return RulePlace{Text: r.String(), File: r.File, Line: r.Line}
}

func named(p *peer) string {
	if p.vassal == "" {
		return "(foreign)"
	}
	return p.vassal
}

// firstSteps is what has no mark: a packet that no router takes for one, and the
// source of a peer that owns it.
func (x *question) firstSteps(o *outcome) []Step {
	switch {
	case o.why == DropMalformed || o.why == DropFragment:
		return []Step{{Name: "form", Result: firewall.Deny.String(), Why: "no well-formed packet of this protocol begins so"}}
	case len(o.out) > 0 && (o.out[0].place == placeForm || o.out[0].place == placeSource):
		return nil
	}
	return []Step{{Name: "source", Result: "pass", About: x.from.public.Load().vassal, Why: fmt.Sprintf("%s is %s's", x.src, x.sender())}}
}

// steps are the decisions of one half of the way.
func (x *question) steps(marks []mark, o *outcome) (steps []Step) {
	for i := range marks {
		m := &marks[i]
		s := Step{Result: "pass"}
		if m.why != pass {
			s.Result = firewall.Deny.String()
		}
		x.fill(&s, m, o)
		steps = append(steps, s)
	}
	return steps
}

// sender names who sends the packet.
func (x *question) sender() string {
	if x.from == nil {
		return "the host"
	}
	if id := x.from.public.Load(); id.vassal != "" {
		return id.vassal
	}
	return "a foreign peer"
}

func (x *question) fill(s *Step, m *mark, o *outcome) {
	switch m.place {
	case placeForm:
		s.Name, s.Why = "form", "link-local, multicast and neighbour discovery of IPv6 never pass a router"
		if !x.net.policy.Load().own[1].IsValid() && x.src.Is6() {
			s.Why = "the router has no IPv6 address, so there is no IPv6 here"
		}
	case placeSource:
		s.Name, s.Why, s.About = "source", x.sourceWords(m), x.from.public.Load().vassal
		if m.claim.holder != "" {
			s.About = m.claim.holder
		}
	case placeChain:
		x.fillChain(s, m)
	case placeBlock:
		s.Name, s.Why = "device rules", "a rule that the device sent denies it"
	case placeGateway:
		s.Name, s.Why = "gateway", "no rule or route sends it there"
		switch {
		case m.why != pass:
			s.Why = "it would leave by the gateway, to a far end that the network does not name"
		case o.verdict.to != nil:
			s.Why = "it leaves by the gateway to " + o.verdict.to.addrPort().String()
		}
	case placeIsolate:
		s.Name, s.Why = "isolate", x.wallWords(m.why != pass)
	case placeTable:
		s.Name = "table"
		switch m.owner.kind {
		case ownerPeer:
			s.Why, s.About = fmt.Sprintf("%s is %s's", x.dst, named(m.owner.peer)), m.owner.peer.vassal
		case ownerPool:
			s.Result, s.Why = firewall.Reject.String(), fmt.Sprintf("%s is of the pool, and no vassal has it now", x.dst)
		case ownerNever:
			s.Result, s.Why = firewall.Deny.String(), fmt.Sprintf("%s is the host's loopback, which nothing from outside the host is for", x.dst)
		case ownerNames:
			s.Why = fmt.Sprintf("%s is the router's own", x.dst)
		default:
			s.Why = fmt.Sprintf("%s is not of the pool: the host's kernel routes it, if its own rules let it", x.dst)
		}
	}
}

func (x *question) sourceWords(m *mark) string {
	c := m.claim
	switch {
	case m.why == pass && c.declared:
		return fmt.Sprintf("%s is %s's, and this packet would register it", x.src, x.sender())
	case m.why == pass:
		return fmt.Sprintf("nobody has %s: %s gets it, if chain out lets the packet pass", x.src, x.sender())
	case c.holder != "":
		return fmt.Sprintf("%s is %s's", x.src, c.holder)
	case m.why == DropSpoofed:
		return fmt.Sprintf("%s has registered another address, %s is not its own", x.sender(), x.src)
	case m.why == DropTaken:
		return fmt.Sprintf("%s is another peer's", x.src)
	}
	return fmt.Sprintf("%s is no address that %s may have", x.src, x.sender())
}

func (x *question) fillChain(s *Step, m *mark) {
	s.Name, s.Result = "chain "+m.dir.String(), m.act.String()
	if m.peer != nil {
		s.Name, s.Vassal = "rules "+m.dir.String(), m.peer.vassal
	}
	rules := m.chain.Rules()
	looked := rules[:m.index+1]
	if m.index < 0 {
		s.Why, s.Result, looked = "no rule matches", "pass", rules
	}
	flow := x.flow()
	for i := range looked {
		c := Considered{Number: i + 1, Hit: i == m.index, RulePlace: placeOf(&looked[i])}
		if !c.Hit {
			c.Why = looked[i].Misses(&flow)
		}
		s.Rules = append(s.Rules, c)
	}
}

// flow is what a rule sees of the packet.
func (x *question) flow() firewall.Flow {
	return firewall.Flow{Src: x.src, Dst: x.dst, Proto: x.Proto, HasPorts: firewall.HasPorts(x.Proto), SrcPort: madeUpPort, DstPort: x.Port}
}

// wallWords say why isolate denies a packet, or does not.
func (x *question) wallWords(denied bool) string {
	w := x.net.policy.Load().walls
	flow := x.flow()
	switch {
	case !denied && w != nil && w.behind(x.dst) && w.opens(&flow):
		return fmt.Sprintf("port %s of %s is published", strconv.Itoa(int(x.Port))+"/"+firewall.ProtoText(x.Proto), x.dst)
	case !denied && w != nil && w.behind(x.dst):
		return "ping and DNS of the router, and DNS of the resolvers, are open to all vassals"
	case !denied:
		return fmt.Sprintf("%s is none of the addresses that vassals are kept from", x.dst)
	case containsAddr(x.cfg.Strangers, x.dst) && !isOwn(&x.cfg, x.dst):
		return fmt.Sprintf("%s is of another network of this emperor, and networks are strangers to each other", x.dst)
	case containsAddr(x.cfg.Pool, x.dst) && !isOwn(&x.cfg, x.dst):
		return fmt.Sprintf("%s is of the pool, and vassals are kept from each other", x.dst)
	case isOwn(&x.cfg, x.dst):
		return fmt.Sprintf("%s is the host's own; open are ping and DNS of the router's, and what is published", x.dst)
	}
	return fmt.Sprintf("%s is private or reserved, and vassals are kept from such addresses", x.dst)
}

func isOwn(cfg *NetworkConfig, a netip.Addr) bool {
	return slices.Contains(cfg.Own, a) || slices.Contains(cfg.Host, a)
}

// advice is for a packet that no line of a file lets pass.
func (x *question) advice(o *outcome) string {
	switch o.why {
	case DropSpoofed, DropTaken, DropUnregistered:
		return fmt.Sprintf("no rule changes this: %s can send from its own addresses only", x.sender())
	case DropForbidden:
		if len(o.out) > 0 && o.out[0].place == placeForm {
			return "no rule changes this"
		}
		if m := o.out; len(m) > 0 && m[len(m)-1].place == placeTable {
			return "no rule changes this: only the host's own programs reach its loopback"
		}
		if m := o.out; len(m) > 0 && m[len(m)-1].place == placeGateway {
			return "name the far end in the emperor's ini: tuntap-router-gateway-peer = IP:PORT"
		}
		return fmt.Sprintf("declare %s in the ini of %s, if the pool has it and nobody else: tuntap-device-address = %s", x.src, x.sender(), x.src)
	case DropNoRoute:
		return fmt.Sprintf("start the vassal that has %s; fiefdom ps lists the addresses", x.dst)
	case DropRule:
		return "the rule came with the device's own rule block, not from a file"
	}
	if containsAddr(x.cfg.Pool, x.dst) && !isOwn(&x.cfg, x.dst) && x.net.table.Load().owner(x.dst).kind != ownerPeer {
		return fmt.Sprintf("no rule changes this: nobody has %s; fiefdom ps lists the addresses", x.dst)
	}
	return "no rule changes this"
}
