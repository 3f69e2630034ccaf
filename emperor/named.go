package emperor

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"fiefdom/vassal"
)

// Named is a vassal and the addresses that it has, or will have once it runs.
type Named struct {
	Name     string
	On       []Presence
	Nameless bool // another vassal has the name in DNS
}

// Presence is a vassal's part of one network.
type Presence struct {
	Network   string // the router's device, or the kernel's bridge
	Addresses []netip.Addr
}

// nameTime is how long changes wait for others: they come in bunches.
const nameTime = 10 * time.Millisecond

// nameSoon has Named told of what has changed.
func (e *Emperor) nameSoon() {
	if !e.renamed || e.naming || e.Named == nil || e.ending {
		return
	}
	e.naming = true
	time.AfterFunc(nameTime, func() {
		e.call(func() {
			e.renamed, e.naming = false, false
			if !e.ending {
				e.Named(e.named())
			}
		})
	})
}

// named are all vassals that have an address of a native network, by name. A
// vassal that does not run has its name all the same: who asks for it before its
// start, or between two, shall find it. They are whole once every ini has been read.
func (e *Emperor) named() (all []Named, whole bool) {
	all, whole = make([]Named, 0, len(e.vassals)), true
	seen := map[string]*Network{}
	for _, v := range e.vassals {
		whole = whole && (v.config != nil || v.err != "")
		if n := (Named{Name: v.name, On: e.presence(v, seen)}); len(n.On) > 0 && !v.removed && !v.dethroned {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	e.judgeNames(all, whole)
	return all, whole
}

// presence is where a vassal is. What runs counts before what is to run next. Bridges
// are those that have been looked at, and each is looked at once.
func (e *Emperor) presence(v *member, bridges map[string]*Network) (on []Presence) {
	add := func(n *Network, a netip.Addr) {
		if !n.prefix(a).IsValid() {
			return
		}
		i := slices.IndexFunc(on, func(p Presence) bool { return p.Network == n.Device })
		if i < 0 {
			i, on = len(on), append(on, Presence{Network: n.Device})
		}
		if !slices.Contains(on[i].Addresses, a) {
			on[i].Addresses = append(on[i].Addresses, a)
		}
	}
	c := v.config
	if v.gen != nil {
		c = v.running
	}
	if c != nil {
		for _, d := range e.devices(c) {
			e.declared(c, d, bridges, add)
		}
	}
	if v.jail != nil { // what hooks have configured is known by its registration
		for _, a := range v.jail.Addresses() {
			for i := range e.Networks {
				add(&e.Networks[i], a)
			}
		}
	}
	return on
}

// declared adds the addresses that a device has by its ini, or by a lease.
func (e *Emperor) declared(c *vassal.Config, d vassal.DeviceSpec, bridges map[string]*Network, add func(*Network, netip.Addr)) {
	n, err := e.networkOf(d)
	if d.Bridge != "" {
		n = e.seenBridge(d.Bridge, bridges)
	}
	if n == nil || err != nil {
		return
	}
	for _, a := range d.Addresses {
		add(n, a)
	}
	if !d.Auto {
		return
	}
	for _, p := range n.Addresses {
		if a, ok := e.Leases.file.Addresses[p.Masked()][c.Name]; ok {
			add(n, a)
		}
	}
}

// seenBridge is a bridge as it is on the host, or else as inis ask for it: it may be
// made yet.
func (e *Emperor) seenBridge(name string, seen map[string]*Network) *Network {
	if n := seen[name]; n != nil {
		return n
	}
	b := e.askedBridge(name)
	if e.Kernel != nil {
		if err := e.Kernel.Look(&b); err != nil {
			b = e.askedBridge(name)
		}
	}
	seen[name] = &b.Network
	return &b.Network
}
