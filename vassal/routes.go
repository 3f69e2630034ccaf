package vassal

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes are the device's default routes, for families that have none yet.
func (l *link) routes(index int, routed map[bool]bool) []netlink.Route {
	if l.Foreign {
		return l.foreignRoutes(index, routed)
	}
	var all []netlink.Route
	for _, gw := range l.Gateways {
		if !routed[gw.Is4()] {
			routed[gw.Is4()] = true
			all = append(all, netlink.Route{LinkIndex: index, Gw: gw.AsSlice()})
		}
	}
	return all
}

// Routing tables and priorities of rules in a jail. The tables that the kernel
// has by itself are 253 to 255, its rules 0, 32766 and 32767.
const (
	firstTable   = 1000
	localFirst   = 1000 // what has a route of its own takes it, whatever the source
	bySource     = 1001
	anyPrefixLen = 0
)

// answerBySource has what is sent from the addresses of a second device leave by
// it, also to where only a default route leads: answers to who came in by it.
func (l *link) answerBySource(handle *netlink.Handle, index int, routed map[bool]bool) error {
	if l.Foreign {
		return nil
	}
	table := firstTable + index
	for _, gw := range l.Gateways {
		if !routed[gw.Is4()] {
			continue // its default route is to be the jail's
		}
		if err := ruleForLocal(handle, family(gw.Is4())); err != nil {
			return err
		}
		if err := handle.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gw.AsSlice(), Table: table}); err != nil {
			return fmt.Errorf("route by %s for answers: %w", gw, err)
		}
		for _, a := range l.Addresses {
			if a.Addr().Is4() != gw.Is4() {
				continue
			}
			rule := netlink.NewRule()
			rule.Family, rule.Priority, rule.Table = family(gw.Is4()), bySource, table
			rule.Src = &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Addr().BitLen(), a.Addr().BitLen())}
			if err := handle.RuleAdd(rule); err != nil {
				return fmt.Errorf("rule for answers from %s: %w", a.Addr(), err)
			}
		}
	}
	return nil
}

// ruleForLocal adds, once for a family, the rule that looks for routes other
// than the default one before rules by source do.
func ruleForLocal(handle *netlink.Handle, family int) error {
	there, err := handle.RuleList(family)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for i := range there {
		if there[i].Priority == localFirst {
			return nil
		}
	}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Table, rule.SuppressPrefixlen = family, localFirst, unix.RT_TABLE_MAIN, anyPrefixLen
	if err := handle.RuleAdd(rule); err != nil {
		return fmt.Errorf("rule for what has a route: %w", err)
	}
	return nil
}

func family(four bool) int {
	if four {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
