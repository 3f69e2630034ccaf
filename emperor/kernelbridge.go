package emperor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// KernelBridge is a network whose packets the kernel moves: one of its bridges, in
// which vassals have devices.
type KernelBridge struct {
	Network        // the host's side: its name and addresses, and what vassals get
	NAT     string // off, auto or an interface; empty: auto if the bridge is ours, else off
	MTU     int    // bytes; 0: not known yet
	Ours    bool   // we make it, or have made it
	Uplink  bool   // the host's default route leads through it: others give addresses away there
}

// KernelSide is the host's side of kernel's bridges.
type KernelSide struct {
	Look func(*KernelBridge) error // completes what is asked for with what the host has; it changes nothing
	Make func(KernelBridge) error  // sees to it that the bridge is there, with its rules
	Plug *vassal.Plugger
}

func (e *Emperor) plugger() *vassal.Plugger {
	if e.Kernel == nil {
		return nil
	}
	return e.Kernel.Plug
}

// makeBridges sees to it that the bridges of a vassal are there.
func (e *Emperor) makeBridges(all []KernelBridge) error {
	for _, b := range all {
		if e.Kernel == nil {
			return fmt.Errorf("bridge %s: nobody here makes kernel's bridges", b.Device)
		}
		if err := e.Kernel.Make(b); err != nil {
			return fmt.Errorf("bridge %s: %w", b.Device, err)
		}
	}
	return nil
}

// declaredBridge is the one that the emperor's own ini has of the name.
func (c *Config) declaredBridge(name string) *KernelBridge {
	i := slices.IndexFunc(c.Bridges, func(b KernelBridge) bool { return b.Device == name })
	if i < 0 {
		return nil
	}
	return &c.Bridges[i]
}

// bridgeRights refuses what only the operator may do with the host's bridges.
func (e *Emperor) bridgeRights(c *vassal.Config, o owner) (errs ini.Errors) {
	for _, d := range c.Devices {
		if d.Bridge == "" {
			continue
		}
		declared := e.Config.declaredBridge(d.Bridge)
		switch {
		case declared != nil:
			errs = append(errs, declared.refuse(d)...)
		case e.Config.Tyrant:
			errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("bridge %s is none of the emperor's in tyrant mode; the emperor's operator would have to declare it: bridge = %[1]s", d.Bridge)})
		case o.uid != 0:
			errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("bridge %s is not declared in the emperor's ini, and only an ini of root's may name another; write bridge = %[1]s there, or chown the file to root", d.Bridge)})
		}
	}
	return errs
}

// refuse says that a vassal wants other addresses of a declared bridge. It is
// said before anything is claimed, which would keep others from the bridge.
func (b *KernelBridge) refuse(d vassal.DeviceSpec) ini.Errors {
	if len(d.BridgeAddresses) == 0 || slices.Equal(b.Addresses, d.BridgeAddresses) {
		return nil
	}
	return ini.Errors{{Pos: d.Pos, Message: fmt.Sprintf("bridge %s has the addresses %v by %s; write the same, or none", b.Device, b.Addresses, b.Pos)}}
}

// CheckBridges says what declared bridges cannot have beside each other and the
// networks of routers.
func (c *Config) CheckBridges(networks []Network) (errs ini.Errors) {
	others := slices.Clone(networks)
	for _, b := range c.Bridges {
		report := func(format string, args ...any) {
			errs = append(errs, ini.Error{Pos: b.Pos, Message: fmt.Sprintf("bridge %s: ", b.Device) + fmt.Sprintf(format, args...)})
		}
		for _, n := range others {
			if n.Device == b.Device {
				report("%s is a router's device by %s; choose another name", b.Device, n.Pos)
			}
			if mine, its, ok := overlap(b.Addresses, n.Addresses); ok {
				report("%s overlaps %s of %s; networks need pools of their own", mine.Masked(), its.Masked(), n.Pos)
			}
		}
		for i, a := range b.Addresses {
			if _, other, ok := overlap([]netip.Prefix{a}, b.Addresses[:i]); ok {
				report("addresses %s and %s are of one prefix; a network has one address a prefix", other, a)
			}
		}
		others = append(others, b.Network)
	}
	return errs
}

// overlap finds two prefixes that have addresses in common.
func overlap(some, others []netip.Prefix) (one, other netip.Prefix, ok bool) {
	for _, one := range some {
		if i := slices.IndexFunc(others, one.Overlaps); i >= 0 {
			return one, others[i], true
		}
	}
	return one, other, false
}

// askedBridge is a bridge as the emperor's ini or those of vassals ask for it.
func (e *Emperor) askedBridge(name string) KernelBridge {
	if declared := e.Config.declaredBridge(name); declared != nil {
		return *declared
	}
	return KernelBridge{Network: Network{Device: name, Addresses: e.claims.Bridge(name), Isolated: true, Names: true}}
}

// bridgeLink resolves a device in one of the kernel's bridges.
func (e *Emperor) bridgeLink(r *resolved, c *vassal.Config, d vassal.DeviceSpec, l vassal.Link) (vassal.Link, *Network, error) {
	b := e.askedBridge(d.Bridge)
	if e.Kernel != nil {
		if err := e.Kernel.Look(&b); err != nil {
			return l, nil, err
		}
	}
	if err := e.apart(&b); err != nil {
		return l, nil, err
	}
	switch {
	case len(b.Addresses) == 0 && e.Kernel == nil: // who only checks an ini may not see the host's bridges
		l.Bridge = b.Device
		return l, &b.Network, nil
	case len(b.Addresses) == 0:
		return l, nil, fmt.Errorf("bridge %s has no address of the host's, so vassals would have no network there; give it one: ip addr add 10.100.0.1/24 dev %[1]s", b.Device)
	case d.Auto && b.Uplink:
		return l, nil, fmt.Errorf("the host's default route leads through bridge %s, so others give addresses of %s away; write a free one: tuntap-device-address = ADDRESS", b.Device, b.pool())
	}
	l.MTU, l.Rules = d.MTU, nil
	if b.MTU == 0 {
		b.MTU = defaultMTU
	}
	if l.MTU == 0 {
		l.MTU = b.MTU
	}
	if l.MTU > b.MTU {
		return l, nil, fmt.Errorf("device %s: bridge %s takes packets of %d bytes; MTU %d is more", d.Name, b.Device, b.MTU, l.MTU)
	}
	if err := e.address(&l, &b.Network, c, d); err != nil {
		return l, nil, err
	}
	l.Plugged(e.Config.Instance, c.Name, b.Device, b.MTU, b.Isolated)
	r.bridges = append(r.bridges, b)
	return l, &b.Network, nil
}

// apart checks that a bridge has no address of a router's network or of another bridge.
func (e *Emperor) apart(b *KernelBridge) error {
	others := slices.Clone(e.Networks)
	for i := range e.Config.Bridges {
		others = append(others, e.Config.Bridges[i].Network)
	}
	for name := range e.claims.bridges {
		others = append(others, e.askedBridge(name).Network)
	}
	for _, n := range others {
		if n.Device == b.Device {
			continue
		}
		if mine, its, ok := overlap(b.Addresses, n.Addresses); ok {
			return fmt.Errorf("%s of bridge %s overlaps %s of %s; networks need pools of their own", mine.Masked(), b.Device, its.Masked(), n.Device)
		}
	}
	return nil
}

// HostEnds are those of the jails that there are.
func (e *Emperor) HostEnds() (all []vassal.HostEnd) {
	e.jails.Range(func(_, j any) bool {
		all = append(all, j.(*vassal.Jail).HostEnds()...)
		return true
	})
	return all
}

// bridgeOptions are about kernel's bridges.
var bridgeOptions = []ini.Option[Config]{
	{
		Name: "bridge", Kind: ini.Text, Since: "0.1", Repeats: true, Set: addBridge,
		Meaning: "NAME [ADDRESS/BITS...]: a bridge of the kernel's that vassals may have devices in (network = bridge:NAME); one that is not there is made, with these addresses, and removed at the end",
	},
	{
		Name: "bridge-nat", Kind: ini.Text, Since: "0.1", Set: setBridgeNAT,
		Meaning: "off, auto or an interface: masquerade the addresses of the bridge before it out of it (auto for a bridge that is made, off for one that is there)",
	},
	{
		Name: "bridge-isolate", Kind: ini.Bool, Since: "0.1", Set: setBridgeIsolate,
		Meaning: "keep the vassals of the bridge before it from each other, from private addresses and from the host (on)",
	},
	{
		Name: "bridge-names", Kind: ini.Bool, Since: "0.1", Set: setBridgeNames,
		Meaning: "answer DNS for the vassals of the bridge before it at its addresses: the names of vassals, and for the rest the host's resolvers; off: vassals ask those themselves (on)",
	},
}

func addBridge(c *Config, p ini.Pair) error {
	words := strings.Fields(p.Value)
	if len(words) == 0 {
		return errors.New("want NAME [ADDRESS/BITS...]")
	}
	if err := vassal.CheckDeviceName(words[0]); err != nil {
		return err
	}
	if other := c.declaredBridge(words[0]); other != nil {
		return fmt.Errorf("bridge %s is already declared at %s", words[0], other.Pos)
	}
	b := KernelBridge{Network: Network{Device: words[0], Isolated: true, Names: true, Written: Written{Pos: p.Pos}}}
	for _, word := range words[1:] {
		a, err := vassal.ParseBridgeAddress(word)
		if err != nil {
			return err
		}
		b.Addresses = append(b.Addresses, a)
	}
	c.Bridges = append(c.Bridges, b)
	return nil
}

func (c *Config) lastBridge(p ini.Pair) (*KernelBridge, error) {
	if len(c.Bridges) == 0 {
		return nil, fmt.Errorf("%s belongs to a bridge; write bridge = NAME before it", p.Key)
	}
	return &c.Bridges[len(c.Bridges)-1], nil
}

func setBridgeNAT(c *Config, p ini.Pair) error {
	b, err := c.lastBridge(p)
	if err != nil {
		return err
	}
	if p.Value == "" || strings.ContainsAny(p.Value, "/ \t") || len(p.Value) > 15 {
		return fmt.Errorf("%s = %s: want off, auto or an interface such as eth0", p.Key, p.Value)
	}
	b.NAT = p.Value
	return nil
}

func setBridgeIsolate(c *Config, p ini.Pair) error {
	return setBridgeBool(c, p, func(b *KernelBridge) *bool { return &b.Isolated })
}

func setBridgeNames(c *Config, p ini.Pair) error {
	return setBridgeBool(c, p, func(b *KernelBridge) *bool { return &b.Names })
}

func setBridgeBool(c *Config, p ini.Pair, field func(*KernelBridge) *bool) error {
	b, err := c.lastBridge(p)
	if err != nil {
		return err
	}
	switch p.Value {
	case "on", "off", "true", "false", "yes", "no", "1", "0":
		*field(b) = ini.ParseBool(p.Value)
		return nil
	}
	return fmt.Errorf("%s = %s: want on or off", p.Key, p.Value) // a typo must not change isolation
}
