package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fiefdom/firewall"
)

// ParseDeviceRule reads uWSGI's "in|out SRC DST ACTION [TARGET]". Beside the
// actions of a firewall rule there are route and gateway, which are one: a
// packet on its way out that matches goes to the far end TARGET, IP:PORT, by
// the network's UDP gateway. Errors name what is wrong and the way out.
func ParseDeviceRule(text string) (DeviceRule, error) {
	words := strings.Fields(text)
	if len(words) < 4 || words[3] != "route" && words[3] != "gateway" {
		dir, rule, err := firewall.ParseDeviceRule(text)
		return DeviceRule{Direction: dir, Rule: rule}, err
	}
	if len(words) != 5 {
		return DeviceRule{}, fmt.Errorf("%q: %s wants where to: out SRC DST %s IP:PORT", text, words[3], words[3])
	}
	dir, rule, err := firewall.ParseDeviceRule(strings.Join(words[:3], " ") + " allow")
	if err != nil {
		return DeviceRule{}, err
	}
	target, err := netip.ParseAddrPort(words[4])
	if err != nil {
		return DeviceRule{}, fmt.Errorf("%q: want an IPv4 address and a port, such as 198.51.100.2:4040", words[4])
	}
	r := DeviceRule{Direction: dir, Rule: rule, Target: target}
	return r, r.Check()
}

// Text is the rule as ParseDeviceRule reads it, without its file and line.
func (r *DeviceRule) Text() string {
	if r.Routes() {
		words := strings.Fields(r.Rule.DeviceText(r.Direction))
		return strings.Join(words[:len(words)-1], " ") + " route " + r.Target.String()
	}
	return r.Rule.DeviceText(r.Direction)
}

// Routes says whether the rule sends packets to a far end.
func (r *DeviceRule) Routes() bool { return r.Target != netip.AddrPort{} }

// Check says what makes no sense in a rule's target, whoever wrote it.
func (r *DeviceRule) Check() error {
	switch {
	case !r.Routes():
		return nil
	case r.Direction != firewall.Out:
		return errors.New("only packets on their way out are routed; write out, or deny what comes in")
	case r.Rule.Action != firewall.Allow:
		return fmt.Errorf("a rule that routes lets the packet leave; it cannot %s it too", r.Rule.Action)
	case !r.Target.Addr().Is4() || r.Target.Port() == 0:
		return fmt.Errorf("%s: want an IPv4 address and a port, such as 198.51.100.2:4040", r.Target)
	}
	return nil
}

// ways are a handed-over device's own rules where one of them routes, compiled:
// they tell the far end of a packet that the rules let through. They never change.
type ways struct {
	chain *firewall.Chain  // of all rules out: the first that matches decides
	to    []netip.AddrPort // by the rule's number; zero: by the table
}

// newWays is nil where no rule routes.
func newWays(rules []DeviceRule) *ways {
	if !slices.ContainsFunc(rules, func(r DeviceRule) bool { return r.Routes() }) {
		return nil
	}
	w := new(ways)
	var list []firewall.Rule
	for _, r := range rules {
		if r.Direction == firewall.Out {
			list, w.to = append(list, r.Rule), append(w.to, r.Target)
		}
	}
	w.chain = firewall.NewChain(list)
	return w
}

// match says where a packet goes that a rule routes: to a far end that the
// network's config names, or nowhere.
func (w *ways) match(r *routes, pk *packet) (v verdict, matched bool) {
	_, i := w.chain.Verdict(&pk.flow)
	if i < 0 || !w.to[i].IsValid() {
		return verdict{}, false
	}
	if v = r.towards(w.to[i]); v.why != pass {
		v.rule = &w.chain.Rules()[i]
	}
	return v, true
}
