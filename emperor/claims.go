package emperor

import (
	"fmt"
	"net/netip"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Claims are the addresses that inis declare: each has one owner.
type Claims struct {
	byAddr map[netip.Addr]claim
}

type claim struct {
	vassal string
	pos    ini.Pos
}

// Add claims what c declares in place of what its vassal claimed before. When
// another vassal has one of the addresses nothing changes and the errors say who.
func (cl *Claims) Add(c *vassal.Config) ini.Errors {
	if cl.byAddr == nil {
		cl.byAddr = map[netip.Addr]claim{}
	}
	var errs ini.Errors
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			if other, ok := cl.byAddr[a]; ok && other.vassal != c.Name {
				errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("address %s is already used by %s", a, other.pos)})
			}
		}
	}
	if len(errs) > 0 {
		return errs
	}
	cl.Remove(c.Name)
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			cl.byAddr[a] = claim{c.Name, d.Pos}
		}
	}
	return nil
}

// Remove gives back what a vassal claimed.
func (cl *Claims) Remove(vassal string) {
	for a, c := range cl.byAddr {
		if c.vassal == vassal {
			delete(cl.byAddr, a)
		}
	}
}

// Holder is the vassal that declares an address, if one does.
func (cl *Claims) Holder(a netip.Addr) (string, bool) {
	c, ok := cl.byAddr[a]
	return c.vassal, ok
}
