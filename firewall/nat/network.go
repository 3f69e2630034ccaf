package nat

import (
	"fmt"
	"net/netip"
	"strings"
)

// Auto as a Network's Masquerade means the devices of the default route.
const Auto = "auto"

// Network is what the host needs to know of one router device.
type Network struct {
	Device     string         // the router's device
	Pool       []netip.Prefix // addresses behind it, of both families
	Gateways   []netip.Addr   // the router's own addresses
	Masquerade string         // "" for none, Auto, or an uplink's name
}

func (n *Network) check() error {
	if err := checkDevice(n.Device); err != nil {
		return err
	}
	if n.Masquerade == n.Device {
		return fmt.Errorf("network %s cannot be masqueraded out of its own device; name the uplink, or %s", n.Device, Auto)
	}
	if n.Masquerade != "" {
		if err := checkDevice(n.Masquerade); err != nil {
			return err
		}
		if len(n.Pool) == 0 {
			return fmt.Errorf("network %s has no pool to masquerade; give its router an address with a mask, such as 10.9.0.1/16", n.Device)
		}
	}
	for _, p := range n.Pool {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("network %s: pool %v is not an address range", n.Device, p)
		}
	}
	for _, a := range n.Gateways {
		if !a.IsValid() || a.Is4In6() {
			return fmt.Errorf("network %s: gateway %v is not an address", n.Device, a)
		}
	}
	return nil
}

// checkDevice refuses names that would be something else in a line of
// iptables-restore or in a path below /proc/sys: a blank, a slash, a dash in
// front, or a plus at the end, which is a wildcard there.
func checkDevice(name string) error {
	ok := name != "" && len(name) <= 15 && name != "." && name != ".." && name[0] != '-' // IFNAMSIZ is 16
	for _, c := range name {
		ok = ok && (isAlnum(c) || strings.ContainsRune("_.-@", c))
	}
	if !ok {
		return fmt.Errorf("%q is not a usable device name; want at most 15 letters, digits, _ . - @", name)
	}
	return nil
}

func isAlnum(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
