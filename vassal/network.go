package vassal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fiefdom/internal/ini"
)

// What the option network says when it names no network.
const (
	NoNetwork   = "none" // a jail with its loopback device alone
	HostNetwork = "host" // no jail: the emperor's own network namespace
)

const bridgePrefix = "bridge:"

// setNetwork reads none, host, names of networks, or a kernel's bridge. A
// device is made for each network, with the next free name of eth0, eth1, ….
func setNetwork(c *Config, p ini.Pair) error {
	words := strings.Fields(p.Value)
	switch {
	case len(words) == 0:
		return errors.New("want none, host, the names of networks, or bridge:NAME [ADDRESS/BITS]")
	case words[0] == NoNetwork || words[0] == HostNetwork:
		if len(words) > 1 || c.Network != "" {
			return fmt.Errorf("%q stands alone: write network = %s and no other", words[0], words[0])
		}
		c.Network, c.NetworkPos = words[0], p.Pos
		return nil
	case strings.HasPrefix(words[0], bridgePrefix):
		return c.addBridge(words, p)
	}
	for _, name := range words {
		if err := CheckDeviceName(name); err != nil {
			return fmt.Errorf("network %q: %w (a kernel's bridge is written bridge:NAME, on a line of its own)", name, err)
		}
		if slices.ContainsFunc(c.Devices, func(d DeviceSpec) bool { return d.Network == name }) {
			return fmt.Errorf("network %s is named twice; a vassal has one device in a network", name)
		}
		c.addDevice(p).Network = name
	}
	return nil
}

// addBridge adds a device whose other end is in a kernel's bridge.
func (c *Config) addBridge(words []string, p ini.Pair) error {
	name := strings.TrimPrefix(words[0], bridgePrefix)
	if err := CheckDeviceName(name); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	var addresses []netip.Prefix
	for _, word := range words[1:] {
		a, err := ParseBridgeAddress(word)
		if err != nil {
			return err
		}
		addresses = append(addresses, a)
	}
	if slices.ContainsFunc(c.Devices, func(d DeviceSpec) bool { return d.Bridge == name }) {
		return fmt.Errorf("bridge %s is named twice; a vassal has one device in a bridge", name)
	}
	d := c.addDevice(p)
	d.Bridge, d.BridgeAddresses = name, addresses
	return nil
}

// ParseBridgeAddress reads the host's own address in a bridge, with the
// prefix of the network.
func ParseBridgeAddress(text string) (netip.Prefix, error) {
	a, err := netip.ParsePrefix(text)
	if err != nil {
		return a, fmt.Errorf("%q: want the bridge's own address with its prefix, such as 10.100.0.1/24", text)
	}
	if err := checkAddress(a.Addr()); err != nil {
		return a, fmt.Errorf("bridge: %w", err)
	}
	switch {
	case a.Addr().BitLen()-a.Bits() < 2:
		return a, fmt.Errorf("%s leaves no address for a vassal", a)
	case a.Addr() == a.Masked().Addr():
		return a, fmt.Errorf("%s is the network itself; the bridge needs an address in it, such as %s", a, a.Addr().Next())
	}
	return a, nil
}

// addDevice adds a device with the next free name. One that options before it
// have begun is the first one's.
func (c *Config) addDevice(p ini.Pair) *DeviceSpec {
	if len(c.Devices) == 1 && c.Devices[0].Implicit {
		c.Devices[0].Implicit, c.Devices[0].Pos = false, p.Pos
		return &c.Devices[0]
	}
	name := DefaultDevice
	for n := 1; slices.ContainsFunc(c.Devices, func(d DeviceSpec) bool { return d.Name == name }); n++ {
		name = fmt.Sprintf("eth%d", n)
	}
	c.Devices = append(c.Devices, DeviceSpec{Name: name, Pos: p.Pos})
	return &c.Devices[len(c.Devices)-1]
}

// leaseNamed has the devices of the option network lease an address where the
// ini gives them none.
func (c *Config) leaseNamed() {
	for i := range c.Devices {
		if d := &c.Devices[i]; d.Named() && !d.Native() {
			d.Auto = true
		}
	}
}

// Named says that the device is one of the option network.
func (d DeviceSpec) Named() bool { return d.Network != "" || d.Bridge != "" }

// checkNetwork says what the option network excludes.
func (c *Config) checkNetwork() (ini.Pos, error) {
	switch c.Network {
	case "":
		return c.NetworkPos, nil
	case NoNetwork, HostNetwork:
	default:
		return c.NetworkPos, fmt.Errorf("network %.100q: want %s, %s or networks", c.Network, NoNetwork, HostNetwork)
	}
	if len(c.Devices) > 0 {
		return c.NetworkPos, fmt.Errorf("network = %s, and device %s at %s: leave one of them out", c.Network, c.Devices[0].Name, c.Devices[0].Pos)
	}
	if c.Isolation.Setns != "" {
		return c.NetworkPos, fmt.Errorf("network = %s, and the namespaces of %s: leave one of them out", c.Network, c.Isolation.Setns)
	}
	return c.NetworkPos, nil
}

// checkPlace checks where a device is to be.
func (d *DeviceSpec) checkPlace() error {
	places := 0
	for _, name := range []string{d.Socket, d.Network, d.Bridge} {
		if name != "" {
			places++
		}
	}
	if places > 1 {
		return fmt.Errorf("device %s is in several networks; a device is in one", d.Name)
	}
	for _, name := range []string{d.Network, d.Bridge} {
		if name == "" {
			continue
		}
		if err := CheckDeviceName(name); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	if len(d.BridgeAddresses) > 0 && d.Bridge == "" || len(d.BridgeAddresses) > maxAddresses {
		return fmt.Errorf("device %s: addresses of no bridge, or more than %d", d.Name, maxAddresses)
	}
	for _, a := range d.BridgeAddresses {
		if !a.IsValid() {
			return fmt.Errorf("device %s: an address of its bridge is none", d.Name)
		}
		if _, err := ParseBridgeAddress(a.String()); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	if d.Bridge != "" && len(d.Rules) > 0 {
		return fmt.Errorf("device %s is in the kernel's bridge %s, and rules of devices are the router's; write the rule for the host's own firewall, or use a network of tuntap-router", d.Name, d.Bridge)
	}
	return nil
}
