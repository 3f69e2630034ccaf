package emperor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// lacking warns of what a vassal wants of the host and this one has not: a bridge that
// nobody would make, an address to publish at. It is no error: the inis may be for
// another host, and an address may come later.
func (e *Emperor) lacking(c *vassal.Config) (errs ini.Errors) {
	warn := func(pos ini.Pos, format string, args ...any) {
		errs = append(errs, ini.Error{Pos: pos, Warning: true, Message: fmt.Sprintf(format, args...)})
	}
	for _, d := range c.Devices {
		if d.Bridge == "" || len(e.askedBridge(d.Bridge).Addresses) > 0 {
			continue
		}
		link, err := netlink.LinkByName(d.Bridge)
		_, none := errors.AsType[netlink.LinkNotFoundError](err)
		switch {
		case none:
			warn(d.Pos, "this host has no bridge %s, and no ini gives it an address to have it made: the vassal would not start here; write bridge:%[1]s 10.100.0.1/24", d.Bridge)
		case err == nil && link.Type() != "bridge":
			warn(d.Pos, "device %s of this host is no bridge (%s): the vassal would not start here; choose another name", d.Bridge, link.Type())
		}
	}
	for _, p := range c.Publish {
		if p.Addr.IsValid() && !p.Addr.IsUnspecified() && !p.Addr.IsLoopback() && !e.hostHas(p.Addr) {
			warn(p.Pos, "publish = %s: no device of this host has the address %s now; the vassal starts once one has", p, p.Addr)
		}
	}
	return errs
}

// hostHas says whether an address is the host's, or will be by this emperor's doing.
func (e *Emperor) hostHas(a netip.Addr) bool {
	networks := slices.Clone(e.Networks)
	for i := range e.Config.Bridges {
		networks = append(networks, e.Config.Bridges[i].Network)
	}
	for name := range e.claims.bridges {
		networks = append(networks, e.askedBridge(name).Network)
	}
	for i := range networks {
		for _, own := range networks[i].Addresses {
			if own.Addr() == a {
				return true
			}
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // nobody knows
	}
	for _, has := range all {
		if n, ok := has.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok && addr.Unmap() == a {
				return true
			}
		}
	}
	return false
}
