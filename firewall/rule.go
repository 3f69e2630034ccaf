package firewall

import "net/netip"

// Action is what a rule says about the packets that it matches.
type Action uint8

// The actions. Reject is Deny with an answer: ICMP administratively
// prohibited, or a TCP reset.
const (
	Allow Action = iota
	Deny
	Reject
)

// Direction is seen from the vassal: Out is from it towards the router, In is
// from the router towards it.
type Direction uint8

// The directions.
const (
	Out Direction = iota
	In
)

// PortRange is a range of ports, both ends included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// Rule is one line of a chain: plain data, so that it can be sent to the
// router and compiled by other back ends.
//
// An invalid (zero) Src or Dst means any address of either family; 0.0.0.0/0
// any IPv4 and ::/0 any IPv6 address.
type Rule struct {
	Action Action       `json:"action"`
	Src    netip.Prefix `json:"src"`
	Dst    netip.Prefix `json:"dst"`
	Proto  uint8        `json:"proto,omitempty"` // IP protocol number; 0 is any
	Ports  []PortRange  `json:"ports,omitempty"` // of the destination; nil is any
	File   string       `json:"file,omitempty"`  // where the rule was written
	Line   int          `json:"line,omitempty"`
}

// Flow is what of a packet the rules look at.
type Flow struct {
	Src, Dst         netip.Addr
	Proto            uint8
	HasPorts         bool // false for protocols without ports
	SrcPort, DstPort uint16
}
