package tuntap

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"fiefdom/firewall"
)

// ownRules are the rules of a handed-over device, compiled. They never change:
// other rules are another one.
type ownRules struct {
	chain [2]*firewall.Chain // by firewall.Direction
	ways  *ways              // where they send packets by the gateway; nil: nowhere
}

// of is the chain of a direction; nil where there is none.
func (o *ownRules) of(dir firewall.Direction) *firewall.Chain {
	if o == nil {
		return nil
	}
	return o.chain[dir]
}

// compile compiles a device's rules.
func (n *network) compile(rules []DeviceRule) (*ownRules, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	own := new(ownRules)
	var list [2][]firewall.Rule
	for _, rule := range rules {
		if int(rule.Direction) >= len(list) {
			return nil, fmt.Errorf("rule %s:%d: unknown direction %d", rule.Rule.File, rule.Rule.Line, rule.Direction)
		}
		if err := rule.Check(); err != nil {
			return nil, fmt.Errorf("rule %s:%d: %w", rule.Rule.File, rule.Rule.Line, err)
		}
		list[rule.Direction] = append(list[rule.Direction], rule.Rule)
	}
	for dir := range list {
		if len(list[dir]) > 0 {
			own.chain[dir] = firewall.NewChain(list[dir])
		}
	}
	// Without the gateway a rule that routes would only allow.
	if own.ways = newWays(rules); own.ways != nil && n.gateway == nil {
		return nil, fmt.Errorf("a rule of the device routes, and network %s has no gateway", n.name)
	}
	return own, nil
}

// mindLine takes a frame of a life line: the emperor takes the device back, or
// gives it other rules.
func (r *Router) mindLine(p *peer, kind byte, payload []byte) {
	switch {
	case kind == kindGoodbye:
		r.closePeer(p, ErrGoodbye)
	case kind != kindPart && kind != kindOwn:
	case len(p.hand.doc)+len(payload) > handoverLimit:
		p.hand.doc = nil
		r.answer(p, fmt.Sprintf("rules of more than %d bytes", handoverLimit))
	default:
		p.hand.doc = append(p.hand.doc, payload...)
		if kind == kindPart {
			return
		}
		doc := p.hand.doc
		p.hand.doc = nil
		text := ""
		if err := p.rule(doc); err != nil {
			text = err.Error() // it keeps those that it has
		}
		r.answer(p, text)
	}
}

// rule gives a peer the rules of a document instead of those that it has. Packets
// that are being decided about meet the ones or the others, as a whole.
func (p *peer) rule(doc []byte) error {
	var rules []DeviceRule
	if err := json.Unmarshal(doc, &rules); err != nil {
		return fmt.Errorf("read the rules: %w", err)
	}
	own, err := p.net.compile(rules)
	if err != nil {
		return err
	}
	if old := p.own.Load(); own != nil {
		for dir := range own.chain {
			own.chain[dir].Resume(old.of(firewall.Direction(dir)))
		}
	}
	p.rules = rules
	p.own.Store(own)
	return nil
}

// ruled says whether a peer has these rules already.
func (p *peer) ruled(rules []DeviceRule) bool {
	return len(p.rules) == 0 && len(rules) == 0 || reflect.DeepEqual(p.rules, rules)
}

// SetRules gives the device other rules than it was handed over with, and waits
// for the router's answer. Its connections, addresses and counters stay. An
// error of the router's leaves it the rules that it has; ErrLineLost says that
// the router ended, and the next one gets the rules with the device; ErrNoAnswer
// that nobody knows which rules it has until it is asked again; ErrLineBroken
// that it cannot be asked by this line.
func (l *Lifeline) SetRules(rules []DeviceRule) error {
	if rules == nil {
		rules = []DeviceRule{}
	}
	doc, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	frames, err := frameDocument(doc, kindOwn)
	if err != nil {
		return err
	}
	l.asking.Lock()
	defer l.asking.Unlock()
	return l.ask(frames)
}

// frameDocument cuts a document into frames: parts, then the end, of the kind
// that is given.
func frameDocument(doc []byte, end byte) ([]byte, error) {
	if len(doc) > handoverLimit {
		return nil, fmt.Errorf("%d bytes are more than the router takes (%d): fewer rules, please", len(doc), handoverLimit)
	}
	var out []byte
	for kind := byte(kindPart); kind != end; {
		n := min(len(doc), framePayload)
		if n == len(doc) {
			kind = end
		}
		var head [frameHeader]byte
		putHeader(head[:], kind, n)
		out = slices.Concat(out, head[:], doc[:n])
		doc = doc[n:]
	}
	return out, nil
}
