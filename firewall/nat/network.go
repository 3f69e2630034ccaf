package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
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
	NamesAt    uint16         // the port of the gateways where names are answered; 0 or 53: where vassals ask, at 53
	Flows      uint32         // that one address of the pool may have at once through the kernel; 0: any number
	Judged     bool           // a router decides what comes out of the device: what it lets go to another judged network gets there
	Shared     bool           // the device has others behind it too, whose packets are the host's business: a bridge that was there before
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

// hasSettings says if the kernel's settings cannot be changed here at all.
func hasSettings() error {
	if _, err := os.Stat(allForwarding(false).path()); err != nil {
		return fmt.Errorf("the kernel's network settings are not there: %w", err)
	}
	return nil
}

// exists says if there is no such device in this network namespace.
func (n *Network) exists() error {
	if err := hasSettings(); err != nil {
		return err
	}
	if v, err := deviceKnob(false, n.Device, "forwarding").value(); err != nil || v == "" {
		return errors.Join(fmt.Errorf("network %s: no such device", n.Device), err)
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
