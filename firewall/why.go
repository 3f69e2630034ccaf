package firewall

import (
	"fmt"
	"strings"
)

// Misses says which of a rule's conditions a flow does not meet, in words for
// people; "" when the rule matches. It asks the matcher itself, once for each
// condition, so that the words cannot disagree with the verdict.
func (r Rule) Misses(f *Flow) string {
	part := func(cut Rule) bool {
		cut.Action = r.Action
		_, i := NewChain([]Rule{cut}).Verdict(f)
		return i == 0
	}
	switch {
	case part(r):
		return ""
	case !part(Rule{Src: r.Src}):
		return fmt.Sprintf("source is %s", f.Src)
	case !part(Rule{Dst: r.Dst}):
		return fmt.Sprintf("destination is %s", f.Dst)
	case !part(Rule{Proto: r.Proto}):
		return "protocol is " + ProtoText(f.Proto)
	case f.HasPorts:
		return fmt.Sprintf("port is %d", f.DstPort)
	}
	return "ports are not known"
}

// ProtoText is the word for a protocol in the text of rules, or its number.
func ProtoText(proto uint8) string { return protoText(proto) }

// ParseProto reads what ProtoText writes. Errors say what it can be.
func ParseProto(s string) (uint8, error) { return parseProto(s) }

// HasPorts reports whether a protocol's packets have ports.
func HasPorts(proto uint8) bool { return hasPorts(proto) }

// DeviceText returns the rule as tuntap-device-rule takes it, which knows
// addresses only: for a rule with a protocol the text says more than the rule.
func (r Rule) DeviceText(dir Direction) string {
	return strings.Join([]string{dir.String(), prefixText(r.Src), prefixText(r.Dst), r.Action.String()}, " ")
}

// Exact returns the rule that matches what f matches by its addresses,
// protocol and port of the destination: the narrowest there is.
func Exact(act Action, f *Flow) Rule {
	r := Rule{Action: act, Src: single(f.Src), Dst: single(f.Dst), Proto: f.Proto}
	if f.HasPorts {
		r.Ports = []PortRange{{f.DstPort, f.DstPort}}
	}
	return r
}
