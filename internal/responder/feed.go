package responder

import "net/netip"

// Zone is the domain of all vassals. It is never asked of any resolver.
const Zone = "fiefdom.internal"

// Feed is what the responder is told. Each takes the place of the one before.
type Feed struct {
	Networks  []Network        `json:"networks"`
	Vassals   []Vassal         `json:"vassals"`
	Resolvers []netip.AddrPort `json:"resolvers"` // of the host, in its order
}

// Network is a network that asks.
type Network struct {
	Name   string         `json:"name"`             // its device's
	Pool   []netip.Prefix `json:"pool"`             // none of whose addresses anybody else knows
	Own    []netip.Addr   `json:"own"`              // where we are asked, at the usual port
	Bridge bool           `json:"bridge,omitempty"` // the kernel's: there may be others on it, and vassals alone are heard
}

// Vassal is a name, and where it leads.
type Vassal struct {
	Name     string   `json:"name"`
	On       []Access `json:"on"`
	Nameless bool     `json:"nameless,omitempty"` // another one has the name
}

// Access is a vassal's part of one network.
type Access struct {
	Network   string       `json:"network"`
	Addresses []netip.Addr `json:"addresses"`
}

// Asker is who asks: known by the socket that he uses, and by his address.
type Asker struct {
	Network string // that he came by; empty: the host itself
	Addr    netip.Addr
}
