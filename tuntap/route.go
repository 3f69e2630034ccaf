package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
)

// Route sends the packets of vassals that a rule matches to another router's
// UDP gateway, whatever the rule's action is.
type Route struct {
	Rule   firewall.Rule  `json:"rule"`
	Target netip.AddrPort `json:"target"`
}

// routes is a network's routes and far ends, compiled. It never changes.
type routes struct {
	chain *firewall.Chain
	to    []*farEnd                  // by the rule's number; nil: not to be sent to
	ends  map[netip.AddrPort]*farEnd // all that may be heard and spoken to
}

func newRoutes(cfg *NetworkConfig) (r routes) {
	if len(cfg.Routes) == 0 && len(cfg.FarEnds) == 0 {
		return r
	}
	r.ends = make(map[netip.AddrPort]*farEnd)
	name := func(a netip.AddrPort) *farEnd {
		// The host's addresses change, so this is asked with each policy.
		if checkFarEnd(a) != nil || slices.Contains(cfg.Host, a.Addr()) || slices.Contains(cfg.Own, a.Addr()) {
			return nil
		}
		if r.ends[a] == nil {
			r.ends[a] = newFarEnd(a)
		}
		return r.ends[a]
	}
	for _, a := range cfg.FarEnds {
		name(a)
	}
	rules := make([]firewall.Rule, len(cfg.Routes))
	for i, route := range cfg.Routes {
		rules[i] = route.Rule
		r.to = append(r.to, name(route.Target))
	}
	if len(rules) > 0 {
		r.chain = firewall.NewChain(rules)
	}
	return r
}

// match asks the routes about a packet: the first that matches has it.
func (r *routes) match(pk *packet) (v verdict, matched bool) {
	_, i := r.chain.Verdict(&pk.flow)
	if i < 0 {
		return verdict{}, false
	}
	if r.to[i] == nil {
		return verdict{why: DropForbidden, rule: &r.chain.Rules()[i]}, true
	}
	return verdict{to: r.to[i]}, true
}

// towards sends a packet to a far end that a device asks for: only to one that
// the config names.
func (r *routes) towards(a netip.AddrPort) verdict {
	if e := r.ends[a]; e != nil {
		return verdict{to: e}
	}
	return drop(DropForbidden)
}

// checkFarEnd says why packets are never sent to an address.
func checkFarEnd(a netip.AddrPort) error {
	switch {
	case !a.Addr().Is4() || a.Port() == 0:
		return fmt.Errorf("%s: want an IPv4 address and a port, such as 198.51.100.2:4040", a)
	case a.Addr().IsLoopback() || a.Addr().IsUnspecified():
		return fmt.Errorf("%s is this host itself; packets go to gateways of other machines only", a)
	case containsAddr(sourcesNever, a.Addr()): // link-local, multicast, broadcast
		return fmt.Errorf("%s is no machine's address; packets go to gateways of other machines only", a)
	}
	return nil
}

func parseFarEnd(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("%q: want an IPv4 address and a port, such as 198.51.100.2:4040", text)
	}
	return a, checkFarEnd(a)
}

// parseGateway reads tuntap-router's fourth word, where :PORT means every address.
func parseGateway(text string) (netip.AddrPort, error) {
	if strings.HasPrefix(text, ":") {
		text = "0.0.0.0" + text
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || !a.Addr().Is4() || a.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("gateway %q: want an IPv4 address of this host and a port, such as 198.51.100.1:4040", text)
	}
	if a.Addr().IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("gateway %s is on the loopback, where no other machine is; want another address of this host", a)
	}
	return a, nil
}

func setRoute(n *NetworkOptions, p ini.Pair) error {
	words := strings.Fields(p.Value)
	if len(words) != 3 {
		return fmt.Errorf("want SRC DST IP:PORT, got %q", p.Value)
	}
	rule, err := firewall.ParseRule("allow " + words[0] + " " + words[1])
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	rule.File, rule.Line = p.Pos.File, p.Pos.Line
	target, err := parseFarEnd(words[2])
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	n.Routes = append(n.Routes, Route{Rule: rule, Target: target})
	return nil
}

func setFarEnd(n *NetworkOptions, p ini.Pair) error {
	a, err := parseFarEnd(p.Value)
	if err != nil {
		return err
	}
	n.FarEnds = append(n.FarEnds, a)
	return nil
}

// AllFarEnds are the gateways of others that the ini names: those of
// tuntap-router-gateway-peer, and the targets of the routes.
func (n *NetworkOptions) AllFarEnds() []netip.AddrPort {
	all := slices.Clone(n.FarEnds)
	for _, r := range n.Routes {
		if !slices.Contains(all, r.Target) {
			all = append(all, r.Target)
		}
	}
	return all
}

// checkGateway says what makes no sense without the gateway.
func (n *NetworkOptions) checkGateway() error {
	if n.Gateway.IsValid() || len(n.Routes) == 0 && len(n.FarEnds) == 0 {
		return nil
	}
	return errors.New("tuntap-router-route and tuntap-router-gateway-peer need a gateway: write tuntap-router = DEVICE SOCKET STATS IP:PORT")
}
