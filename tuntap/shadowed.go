package tuntap

import (
	"fmt"
	"slices"
	"strings"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
)

// Shadowed warns of rules of the network that never decide.
func (n *NetworkOptions) Shadowed() ini.Errors {
	return append(shadowed(nil, n.Out), shadowed(nil, n.In)...)
}

// ShadowedRules warns of rules of a device that never decide, behind those of
// its network; n is nil where there is none of ours.
func (n *NetworkOptions) ShadowedRules(own []DeviceRule) (errs ini.Errors) {
	if n == nil {
		n = new(NetworkOptions)
	}
	for dir, before := range map[firewall.Direction][]firewall.Rule{firewall.Out: n.Out, firewall.In: n.In} {
		var rules []firewall.Rule
		for _, r := range own {
			if r.Direction == dir {
				rules = append(rules, r.Rule)
			}
		}
		errs = append(errs, shadowed(before, rules)...)
	}
	return errs
}

// Shadowed is ShadowedRules behind rules of a network that are given with their
// directions.
func Shadowed(network, own []DeviceRule) ini.Errors {
	var n NetworkOptions
	for _, r := range network {
		if r.Direction == firewall.Out {
			n.Out = append(n.Out, r.Rule)
		} else {
			n.In = append(n.In, r.Rule)
		}
	}
	return n.ShadowedRules(own)
}

func shadowed(before, rules []firewall.Rule) (errs ini.Errors) {
	all := slices.Concat(before, rules)
	for _, s := range firewall.Shadowed(before, rules) {
		r := &rules[s.Rule]
		errs = append(errs, ini.Error{
			Pos: ini.Pos{File: r.File, Line: r.Line}, Warning: true, Message: "rule never matches: " + comesFirst(r, all, s.By),
		})
	}
	return errs
}

// comesFirst names the rules that shadow r.
func comesFirst(r *firewall.Rule, all []firewall.Rule, by []int) string {
	if len(by) == 0 {
		return "no packet has these addresses and this protocol"
	}
	var names []string
	for _, i := range by {
		name := fmt.Sprintf("line %d", all[i].Line)
		switch {
		case all[i].Line == 0:
			name = all[i].File // unsaved
		case all[i].File != r.File:
			name = fmt.Sprintf("%s:%d", all[i].File, all[i].Line)
		}
		names = append(names, fmt.Sprintf("%s %q", name, all[i].String()))
	}
	if len(names) == 1 {
		return names[0] + " comes first"
	}
	const most = 4
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last] + " come first"
}
