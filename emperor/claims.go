package emperor

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Claims are the addresses that inis declare, and the ports that they publish:
// each has one owner.
type Claims struct {
	byAddr  map[netip.Addr]claim
	ports   map[string][]vassal.Publish // by vassal
	bridges map[string][]bridgeClaim    // by the bridge's name
	owners  map[string]int              // uid, by vassal: those whose inis are good

	freed bool // something was given up since this was false
}

// bridgeClaim is what an ini says about a kernel's bridge that is to be made.
type bridgeClaim struct {
	claim
	addresses []netip.Prefix
}

type claim struct {
	vassal string
	pos    ini.Pos
}

// Add claims what c declares in place of what its vassal claimed before. When
// another vassal has one of the addresses or ports nothing changes and the errors say who.
func (cl *Claims) Add(c *vassal.Config) ini.Errors {
	if cl.byAddr == nil {
		cl.byAddr, cl.ports, cl.owners = map[netip.Addr]claim{}, map[string][]vassal.Publish{}, map[string]int{}
	}
	var errs ini.Errors
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			if other, ok := cl.byAddr[a]; ok && other.vassal != c.Name {
				errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("address %s is already used by %s", a, other.pos)})
			}
		}
	}
	errs = append(errs, cl.published(c)...)
	errs = append(errs, cl.checkBridges(c)...)
	if len(errs) > 0 {
		return errs
	}
	freed := cl.freed
	had := cl.remove(c.Name)
	cl.addBridges(c)
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			cl.byAddr[a] = claim{c.Name, d.Pos}
		}
	}
	if len(c.Publish) > 0 {
		cl.ports[c.Name] = c.Publish
	}
	if c.UID != nil {
		cl.owners[c.Name] = c.UID.ID
	}
	cl.freed = freed || cl.lacks(c.Name, had)
	return nil
}

// claimed is all that one vassal claims.
type claimed struct {
	addrs   []netip.Addr
	ports   []vassal.Publish
	bridges []string
	owner   int  // uid; meaningful if counted
	counted bool // among its owner's vassals
}

// lacks says whether a vassal does not claim all that it had claimed before.
func (cl *Claims) lacks(name string, had claimed) bool {
	return slices.ContainsFunc(had.addrs, func(a netip.Addr) bool { return cl.byAddr[a].vassal != name }) ||
		slices.ContainsFunc(had.ports, func(p vassal.Publish) bool {
			return !slices.ContainsFunc(cl.ports[name], func(q vassal.Publish) bool { return q.String() == p.String() })
		}) || len(had.bridges) > 0 || had.counted && !cl.counts(name, had.owner)
}

// counts says whether a vassal is among its owner's.
func (cl *Claims) counts(name string, owner int) bool {
	now, counted := cl.owners[name]
	return counted && now == owner
}

// published says which ports are other vassals'.
func (cl *Claims) published(c *vassal.Config) (errs ini.Errors) {
	for _, p := range c.Publish {
		var first string // of those that have it, so that the same one is always told
		var pos ini.Pos
		for name, theirs := range cl.ports {
			if name == c.Name || first != "" && name > first {
				continue
			}
			if i := slices.IndexFunc(theirs, p.Clashes); i >= 0 {
				first, pos = name, theirs[i].Pos
			}
		}
		if first != "" {
			errs = append(errs, ini.Error{Pos: p.Pos, Message: fmt.Sprintf("port %s is already published by %s", p.HostPorts(), pos)})
		}
	}
	return errs
}

// Remove gives back what a vassal claimed.
func (cl *Claims) Remove(vassal string) {
	if had := cl.remove(vassal); cl.lacks(vassal, had) {
		cl.freed = true
	}
}

func (cl *Claims) remove(vassal string) (had claimed) {
	had.ports = cl.ports[vassal]
	delete(cl.ports, vassal)
	had.owner, had.counted = cl.owners[vassal]
	delete(cl.owners, vassal)
	for a, c := range cl.byAddr {
		if c.vassal == vassal {
			had.addrs = append(had.addrs, a)
			delete(cl.byAddr, a)
		}
	}
	for name, all := range cl.bridges {
		kept := slices.DeleteFunc(all, func(b bridgeClaim) bool { return b.vassal == vassal })
		if len(kept) < len(all) {
			had.bridges = append(had.bridges, name)
		}
		cl.bridges[name] = kept
	}
	return had
}

// copied is for trying what may have to be taken back.
func (cl *Claims) copied() Claims {
	all := Claims{byAddr: maps.Clone(cl.byAddr), ports: maps.Clone(cl.ports), owners: maps.Clone(cl.owners), freed: cl.freed}
	if cl.bridges != nil {
		all.bridges = map[string][]bridgeClaim{}
	}
	for name, list := range cl.bridges {
		all.bridges[name] = slices.Clone(list)
	}
	return all
}

// checkBridges finds an ini that has another address for the bridge than others.
func (cl *Claims) checkBridges(c *vassal.Config) (errs ini.Errors) {
	for _, d := range c.Devices {
		for _, other := range cl.bridges[d.Bridge] {
			if len(d.BridgeAddresses) > 0 && other.vassal != c.Name && !slices.Equal(other.addresses, d.BridgeAddresses) {
				errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("bridge %s has other addresses (%v) by %s; write the same, or none", d.Bridge, other.addresses, other.pos)})
			}
		}
	}
	return errs
}

func (cl *Claims) addBridges(c *vassal.Config) {
	for _, d := range c.Devices {
		if len(d.BridgeAddresses) == 0 {
			continue
		}
		if cl.bridges == nil {
			cl.bridges = map[string][]bridgeClaim{}
		}
		cl.bridges[d.Bridge] = append(cl.bridges[d.Bridge], bridgeClaim{claim{c.Name, d.Pos}, d.BridgeAddresses})
	}
}

// Bridge is the addresses that inis want a kernel's bridge to have.
func (cl *Claims) Bridge(name string) []netip.Prefix {
	for _, b := range cl.bridges[name] {
		return b.addresses
	}
	return nil
}

// Holder is the vassal that declares an address, if one does.
func (cl *Claims) Holder(a netip.Addr) (string, bool) {
	c, ok := cl.byAddr[a]
	return c.vassal, ok
}
