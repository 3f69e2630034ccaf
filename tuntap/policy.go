package tuntap

import (
	"net/netip"
	"slices"

	"fiefdom/firewall"
)

// policy is a network's config, compiled. It never changes; an update brings
// a new one.
type policy struct {
	cfg   NetworkConfig
	chain [2]*firewall.Chain // by firewall.Direction
	walls *walls             // nil unless isolate, or there are strangers
	own   [2]netip.Addr      // an address of the router, for its answers, by family; invalid: none
	never map[netip.Addr]bool

	routes routes
}

func newPolicy(cfg NetworkConfig) *policy {
	pol := &policy{cfg: cfg, never: make(map[netip.Addr]bool), routes: newRoutes(&cfg)}
	if len(cfg.In) > 0 {
		pol.chain[firewall.In] = firewall.NewChain(cfg.In)
	}
	if len(cfg.Out) > 0 {
		pol.chain[firewall.Out] = firewall.NewChain(cfg.Out)
	}
	if cfg.Isolate || len(cfg.Strangers) > 0 {
		pol.walls = newWalls(&cfg)
	}
	for _, pfx := range cfg.Pool {
		if pfx.Bits() >= pfx.Addr().BitLen()-1 {
			continue // RFC 3021, RFC 6164: no network address
		}
		pol.never[pfx.Masked().Addr()] = true
		if pfx.Addr().Is4() {
			pol.never[lastAddr(pfx)] = true
		}
	}
	for _, a := range cfg.Own {
		pol.never[a] = true
		if f := family(a); !pol.own[f].IsValid() && !a.IsLinkLocalUnicast() {
			pol.own[f] = a
		}
	}
	for _, a := range cfg.Host {
		pol.never[a] = true
	}
	for a := range pol.routes.ends { // or a vassal could speak as one to the gateway
		pol.never[a.Addr()] = true
	}
	return pol
}

// resume has rules that were in force before go on counting.
func (pol *policy) resume(before *policy) {
	for dir := range pol.chain {
		pol.chain[dir].Resume(before.chain[dir])
	}
	pol.routes.chain.Resume(before.routes.chain)
}

// lastAddr returns the broadcast address of an IPv4 prefix.
func lastAddr(pfx netip.Prefix) netip.Addr {
	b := pfx.Masked().Addr().As4()
	for bit := pfx.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}

// sourcesNever are sources that no network gives to anybody.
var sourcesNever = prefixes("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0/96", "fe80::/10", "fec0::/10", "ff00::/8")

// neverGiven reports whether a is an address that nobody is ever given here.
func (pol *policy) neverGiven(a netip.Addr) bool {
	if pol.never[a] || containsAddr(sourcesNever, a) {
		return true
	}
	return len(pol.cfg.Pool) > 0 && !containsAddr(pol.cfg.Pool, a)
}

// reservations returns what is declared for a vassal, as prefixes, in order.
func (pol *policy) reservations(vassal string) []netip.Prefix {
	if vassal == "" {
		return nil
	}
	var list []netip.Prefix
	for a, v := range pol.cfg.Reserved {
		if v == vassal {
			list = append(list, single(a))
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	for _, pfx := range list {
		if pfx.Contains(a) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
