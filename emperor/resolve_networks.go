package emperor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// devices are those that a vassal is to have: its ini's, or the one of the network
// that attaches all. That is also what an ini means that has rules for a device,
// or its MTU, and names none.
func (e *Emperor) devices(c *vassal.Config) []vassal.DeviceSpec {
	n := e.attaching()
	switch {
	case n == nil || c.Isolation.Setns != "" || c.Network != "":
	case len(c.Devices) == 0:
		return []vassal.DeviceSpec{{Name: vassal.DefaultDevice, Auto: true, Socket: n.Socket, Pos: ini.Pos{File: c.File}}}
	case len(c.Devices) == 1 && c.Devices[0].Implicit && !c.Devices[0].Native():
		d := c.Devices[0]
		d.Auto, d.Socket = true, n.Socket
		return []vassal.DeviceSpec{d}
	}
	return c.Devices
}

// attaching is the network that gives every vassal a device, if one does.
func (e *Emperor) attaching() *Network {
	for i := range e.Networks {
		if e.Networks[i].AttachAll {
			return &e.Networks[i]
		}
	}
	return nil
}

// networkOf finds the network of a device: by its socket, or for a native one
// without a socket the one that has its address, else the only native one. One
// in a kernel's bridge is in none of a router's.
func (e *Emperor) networkOf(d vassal.DeviceSpec) (*Network, error) {
	if d.Bridge != "" {
		return nil, nil
	}
	var fits []*Network
	for i := range e.Networks {
		n := &e.Networks[i]
		switch {
		case d.Network == n.Device, d.Socket != "" && d.Socket == n.Socket:
			return n, nil
		case d.Network != "":
		case d.Socket == "" && d.Auto && len(n.Addresses) > 0:
			fits = append(fits, n)
		case d.Socket == "" && slices.ContainsFunc(d.Addresses, func(a netip.Addr) bool { return n.prefix(a).IsValid() }):
			fits = append(fits, n)
		}
	}
	switch {
	case d.Network != "":
		return nil, fmt.Errorf("no network %s; networks of this emperor are: %s (a kernel's bridge is written bridge:%[1]s)", d.Network, e.networkNames())
	case d.Socket != "" || !d.Native():
		return nil, nil // a foreign router's network, or only a device
	case len(fits) == 0:
		return nil, fmt.Errorf("no network of this emperor has the address of device %s; networks are: %s", d.Name, e.pools())
	case len(fits) > 1 && e.attaching() != nil:
		return e.attaching(), nil
	case len(fits) > 1:
		return nil, fmt.Errorf("several networks fit device %s; name one by its socket: tuntap-device = %s SOCKET", d.Name, d.Name)
	}
	return fits[0], nil
}

func (e *Emperor) sockets() string {
	var all []string
	for _, n := range e.Networks {
		all = append(all, n.Socket)
	}
	if len(all) == 0 {
		return "none (write tuntap-router = DEVICE SOCKET)"
	}
	return strings.Join(all, " ")
}

func (e *Emperor) pools() string {
	var all []string
	for _, n := range e.Networks {
		for _, a := range n.Addresses {
			all = append(all, a.Masked().String())
		}
	}
	if len(all) == 0 {
		return "none native (write tuntap-router-address = ADDRESS/BITS)"
	}
	return strings.Join(all, " ")
}

// gateway is where the default route of a prefix leads.
func (n *Network) gateway(p netip.Prefix) netip.Addr {
	for _, gw := range n.Gateways {
		if p.Masked().Contains(gw) {
			return gw
		}
	}
	return p.Addr()
}

// kind is what moves the network's packets.
func (n *Network) kind() string {
	if n.Socket == "" {
		return "bridge"
	}
	return "router"
}

func (n *Network) pool() string {
	var all []string
	for _, a := range n.Addresses {
		all = append(all, a.Masked().String())
	}
	return strings.Join(all, " ")
}

// prefix is the router's own prefix that a is in; invalid when none is.
func (n *Network) prefix(a netip.Addr) netip.Prefix {
	for _, p := range n.Addresses {
		if p.Masked().Contains(a) {
			return p
		}
	}
	return netip.Prefix{}
}
