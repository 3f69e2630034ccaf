package vassal

import (
	"net/netip"

	"fiefdom/firewall"
)

// Undecided says what a device's app may begin towards addresses of which no rule
// speaks: chain are the network's rules, own the device's.
type Undecided struct {
	Allowed bool // by a rule of the network's, before it isolates
	Denied  bool
}

// WhatIsLeft is Undecided of one family.
func WhatIsLeft(chain, own []Rule, v6 bool) Undecided {
	action, decided := ofAll(chain, v6)
	if decided {
		return Undecided{Allowed: action == firewall.Allow, Denied: action != firewall.Allow || deniesAll(own, v6)}
	}
	return Undecided{Denied: deniesAll(own, v6)}
}

func deniesAll(rules []Rule, v6 bool) bool {
	action, decided := ofAll(rules, v6)
	return decided && action != firewall.Allow
}

// ofAll is the action of the first rule out for all packets of a family.
func ofAll(rules []Rule, v6 bool) (action firewall.Action, decided bool) {
	all := func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 && p.Addr().Is6() == v6 }
	for i := range rules {
		if r := &rules[i].Rule; rules[i].Direction == firewall.Out && all(r.Src) && all(r.Dst) && r.Proto == 0 && len(r.Ports) == 0 {
			return r.Action, true
		}
	}
	return action, false
}
