package vassal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/tuntap"
)

// Bridging is a device that wants a bridge to a foreign router.
type Bridging struct {
	Vassal    string
	Device    *tuntap.Device // stays the jail's, and open until the bridge has stopped
	Socket    string
	Greeting  tuntap.Greeting
	Announced func(tuntap.Announcement) // the device's first packet of a family went out
	Known     []tuntap.Announcement     // that an earlier bridge of the device made
	Again     bool                      // there was an earlier one: a router that is not there is waited for
	Lost      func(why string)          // the device is gone
}

// Bridge is a running bridge.
type Bridge struct {
	Stop    func()        // returns when nothing of the bridge is left
	Trouble func() string // why it has no router now; empty when it has
}

// Bridger starts bridges. It fails when the router is not there.
type Bridger func(Bridging) (Bridge, error)

// Bridge joins the devices of foreign routers with them. lost is called when one
// of the devices is gone, changed when there is more to Keep; not under any lock.
func (j *Jail) Bridge(start Bridger, changed func(), lost func(why string)) error {
	j.joining.Lock()
	defer j.joining.Unlock()
	for _, l := range j.links {
		if !l.Foreign || j.left {
			continue
		}
		if start == nil {
			return fmt.Errorf("device %s: nobody here starts bridges to other routers", l.Device)
		}
		b, err := start(Bridging{
			Vassal: j.Name, Device: l.dev, Socket: l.Socket, Greeting: l.greeting(),
			Known: l.announced, Again: l.restored,
			Announced: func(a tuntap.Announcement) {
				j.announced(l, a)
				changed()
			},
			Lost: func(why string) {
				j.mu.Lock()
				l.broken = true
				j.mu.Unlock()
				lost(why)
			},
		})
		if err != nil {
			return err
		}
		j.mu.Lock()
		l.bridge = &b
		j.mu.Unlock()
	}
	return nil
}

// stopBridges is part of Leave, under its lock.
func (j *Jail) stopBridges() {
	for _, l := range j.links {
		j.mu.Lock()
		b := l.bridge
		l.bridge = nil
		j.mu.Unlock()
		if b != nil {
			b.Stop()
		}
	}
}

// announced notes the address that a device began to speak from.
func (j *Jail) announced(l *link, a tuntap.Announcement) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l.announced = append(l.announced, a)
	if l.mayHave(a.Src) {
		l.registered = append(l.registered, a.Src)
	}
}

func (l *link) greeting() tuntap.Greeting {
	return tuntap.Greeting{Rules: l.Rules, Credentials: l.Link.Greeting.Credentials, UID: l.Link.Greeting.UID, GID: l.Link.Greeting.GID}
}

// Troubles say which devices have no router now, and why.
func (j *Jail) Troubles() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []string
	for _, l := range j.links {
		if l.bridge == nil {
			continue
		}
		if why := l.bridge.Trouble(); why != "" {
			all = append(all, fmt.Sprintf("device %s has no router at %s: %s", l.Device, l.Socket, why))
		}
	}
	return all
}

// CheckForeign says why a foreign router cannot serve the link.
func (l *Link) CheckForeign() error {
	if l.MTU > tuntap.MaxBridgedMTU {
		return fmt.Errorf("device %s: a foreign router takes packets of %d bytes; MTU %d is more", l.Device, tuntap.MaxBridgedMTU, l.MTU)
	}
	if err := (tuntap.Greeting{Rules: l.Rules}).Check(); err != nil {
		return fmt.Errorf("device %s: %w", l.Device, err)
	}
	for _, gw := range l.Gateways {
		if !slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == gw.Is4() }) {
			return fmt.Errorf("gateway %s of device %s: the device has no address of its family", gw, l.Device)
		}
	}
	return nil
}

// foreignRoutes are those of a device whose network's prefix nobody has told
// us: everything goes through it, by the gateway if the ini names one.
func (l *link) foreignRoutes(index int, routed map[bool]bool) []netlink.Route {
	var all []netlink.Route
	seen := map[bool]bool{}
	for _, a := range l.Addresses {
		four := a.Addr().Is4()
		if seen[four] {
			continue
		}
		seen[four] = true
		gw := l.gateway(a)
		if gw.IsValid() {
			all = append(all, netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(gw, gw.BitLen()))})
		}
		switch {
		case routed[four]:
			continue
		case gw.IsValid():
			all = append(all, netlink.Route{LinkIndex: index, Gw: gw.AsSlice()})
		default:
			all = append(all, netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(a.Addr(), 0).Masked())})
		}
		routed[four] = true
	}
	return all
}

// Traffic counts what went through the devices that no router of ours reads, those
// of foreign routers and of kernel's bridges, seen from the vassal: bytes, and packets
// that found their device's queue full.
func (j *Jail) Traffic() (rx, tx, full uint64, err error) {
	if !j.joining.TryLock() { // it comes or goes, or somebody else asks
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.seen.rx, j.seen.tx, j.seen.full, nil
	}
	defer j.joining.Unlock()
	var names []string
	for _, l := range j.links {
		if l.Foreign || l.Bridge != "" {
			names = append(names, l.Device)
		}
	}
	if len(names) == 0 || j.left {
		return 0, 0, 0, nil
	}
	err = netns.Do(j.ns, func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer handle.Close()
		for _, name := range names {
			dev, lerr := handle.LinkByName(name)
			if lerr != nil {
				err = errors.Join(err, lerr)
				continue
			}
			if s := dev.Attrs().Statistics; s != nil {
				rx, tx, full = rx+s.RxBytes, tx+s.TxBytes, full+s.TxDropped
			}
		}
		return err
	})
	if err == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.seen.rx, j.seen.tx, j.seen.full = rx, tx, full
	}
	return rx, tx, full, err
}
