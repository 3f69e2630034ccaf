package firewall

import (
	"net/netip"
	"strconv"
	"strings"
)

// PortRange is a range of ports, both ends included.
type PortRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// String returns one port, or first-last.
func (p PortRange) String() string {
	s := strconv.Itoa(int(p.First))
	if p.First == p.Last {
		return s
	}
	return s + "-" + strconv.Itoa(int(p.Last))
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

// Unsaved is the File of a rule that no file has.
const Unsaved = "unsaved"

// String returns the rule's text, without its file and line. ParseRule reads
// it back as an equal rule, if the rule came from there.
func (r Rule) String() string {
	if !r.Src.IsValid() && !r.Dst.IsValid() && r.Proto == 0 {
		return r.Action.String()
	}
	words := []string{r.Action.String(), prefixText(r.Src), prefixText(r.Dst)}
	if r.Proto != 0 {
		words = append(words, protoText(r.Proto))
	}
	if len(r.Ports) > 0 {
		ports := make([]string, len(r.Ports))
		for i, p := range r.Ports {
			ports[i] = p.String()
		}
		words = append(words, strings.Join(ports, ","))
	}
	return strings.Join(words, " ")
}

// prefixText leaves out the mask of a host; of the unspecified address it
// must not, since that alone means any.
func prefixText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "any"
	case p.IsSingleIP() && !p.Addr().IsUnspecified():
		return p.Addr().String()
	}
	return p.String()
}

// Flow is what of a packet the rules look at.
type Flow struct {
	Src, Dst         netip.Addr
	Proto            uint8
	HasPorts         bool // false for protocols without ports
	SrcPort, DstPort uint16
}
