package responder

import (
	"net/netip"
	"slices"
	"strings"
)

// zone is a feed's names, compiled. It is never changed.
type zone struct {
	networks map[string]*Network // by lower-case name
	pools    []netip.Prefix
	own      map[netip.Addr]bool
	byName   map[string]*Vassal
	byAddr   map[netip.Addr]*Vassal
	above    map[string]bool // what names with dots end in: "com" of "example.com"
}

func newZone(f *Feed) *zone {
	z := &zone{
		networks: map[string]*Network{}, own: map[netip.Addr]bool{},
		byName: map[string]*Vassal{}, byAddr: map[netip.Addr]*Vassal{}, above: map[string]bool{},
	}
	for i := range f.Networks {
		n := &f.Networks[i]
		z.networks[strings.ToLower(n.Name)] = n
		z.pools = append(z.pools, n.Pool...)
		for _, a := range n.Own {
			z.own[a] = true
		}
	}
	for i := range f.Vassals {
		v := &f.Vassals[i]
		for _, on := range v.On {
			for _, a := range on.Addresses {
				z.byAddr[a] = v
			}
		}
		z.add(v)
	}
	return z
}

// add gives a vassal its name. Of names that differ in their case only, the one
// in small letters has it, else the first of the alphabet.
func (z *zone) add(v *Vassal) {
	name := HostName(v.Name)
	host, last := cutLast(name)
	if name == "" || v.Nameless || host != "" && z.networks[last] != nil { // blog.fief0 is the vassal blog
		return
	}
	if other := z.byName[name]; other != nil && (other.Name == name || v.Name != name && other.Name < v.Name) {
		return
	}
	z.byName[name] = v
	for _, rest, more := strings.Cut(name, "."); more; _, rest, more = strings.Cut(rest, ".") {
		z.above[rest] = true
	}
}

// cutLast splits off the last label.
func cutLast(name string) (before, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// admits says whether an asker is one: of the network's pool, in a bridge a vassal
// that is there, or the host itself.
func (z *zone) admits(a Asker) bool {
	if a.Network == "" {
		return true // by the loopback device
	}
	n := z.networks[strings.ToLower(a.Network)]
	if n != nil && n.Bridge {
		return z.isOn(a)
	}
	return n != nil && slices.ContainsFunc(n.Pool, func(p netip.Prefix) bool { return p.Contains(a.Addr) })
}

// sees says whether an asker is on a network.
func (z *zone) sees(a Asker, network string) bool {
	if a.Network == "" || a.Network == network {
		return true
	}
	return z.isOn(a) && slices.ContainsFunc(z.byAddr[a.Addr].On, func(on Access) bool { return on.Network == network })
}

// isOn says whether an asker is a vassal that has his address in the network that
// he came by.
func (z *zone) isOn(a Asker) bool {
	v := z.byAddr[a.Addr]
	return v != nil && slices.ContainsFunc(v.On, func(on Access) bool { return on.Network == a.Network && slices.Contains(on.Addresses, a.Addr) })
}

// visible are a vassal's addresses for an asker; in one network, if it is named.
// Those of the network that he came by are first.
func (z *zone) visible(v *Vassal, a Asker, network string) (found []netip.Addr) {
	if v == nil {
		return nil
	}
	for _, on := range v.On {
		switch {
		case network != "" && on.Network != network || !z.sees(a, on.Network):
		case on.Network == a.Network:
			found = append(slices.Clone(on.Addresses), found...)
		default:
			found = append(found, on.Addresses...)
		}
	}
	return found
}

// verdict is what is known about a name.
type verdict int

const (
	notOurs verdict = iota // a resolver may know
	known                  // addresses, maybe none
	unknown                // there is no such name
)

// lookup looks a name up, which is in small letters and without its last dot.
func (z *zone) lookup(name string, a Asker) ([]netip.Addr, verdict) {
	if name == Zone {
		return nil, known
	}
	if rest, below := strings.CutSuffix(name, "."+Zone); below {
		return z.below(rest, a)
	}
	if strings.Contains(name, "."+Zone+".") {
		return nil, unknown // with a domain of a search list behind it
	}
	host, last := cutLast(name)
	switch n := z.networks[last]; {
	case name == "localhost" || last == "localhost":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, known
	case host == "":
		v := z.byName[name]
		if found := z.visible(v, a, ""); len(found) > 0 {
			return found, known
		}
		if v != nil {
			return nil, unknown // to him, and no resolver is to hear of it
		}
		return nil, notOurs
	case n != nil:
		return z.in(n, host, a)
	}
	return nil, notOurs
}

// below looks up what stands before the zone.
func (z *zone) below(name string, a Asker) ([]netip.Addr, verdict) {
	if found := z.visible(z.byName[name], a, ""); len(found) > 0 {
		return found, known
	}
	host, last := cutLast(name)
	n := z.networks[last]
	switch {
	case n != nil && host == "" && z.sees(a, n.Name):
		return nil, known // names are below it
	case n != nil && host != "":
		return z.in(n, host, a)
	case z.above[name]:
		return nil, known
	}
	return nil, unknown
}

// in looks a vassal up in one network.
func (z *zone) in(n *Network, host string, a Asker) ([]netip.Addr, verdict) {
	if found := z.visible(z.byName[host], a, n.Name); len(found) > 0 {
		return found, known
	}
	if z.above[host] && z.sees(a, n.Name) {
		return nil, known
	}
	return nil, unknown
}

// reverse looks up who has an address of a pool, or beside others in a bridge.
func (z *zone) reverse(p netip.Prefix, a Asker) (name string, v verdict) {
	isVassals := p.IsSingleIP() && z.byAddr[p.Addr()] != nil
	if !isVassals && !slices.ContainsFunc(z.pools, func(pool netip.Prefix) bool { return pool.Bits() <= p.Bits() && pool.Contains(p.Addr()) }) {
		return "", notOurs
	}
	if !p.IsSingleIP() {
		return "", known // names are below it
	}
	holder := z.byAddr[p.Addr()]
	if holder == nil || !slices.Contains(z.visible(holder, a, ""), p.Addr()) {
		return "", unknown
	}
	name = HostName(holder.Name)
	if z.byName[name] != holder {
		return "", unknown // its name is no name here
	}
	return name, known
}
