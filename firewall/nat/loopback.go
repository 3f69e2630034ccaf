package nat

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeLocalnet is the knob that lets packets from 127.0.0.0/8 leave by a device.
func routeLocalnet(device string) knob { return deviceKnob(false, device, "route_localnet") }

// localMetric and a device's index are that of its route for ::1; the kernel's
// own has 0 and wins wherever the device does not matter. Of two with the same
// one the kernel would refuse the second.
const localMetric = 2048

// openLoopback lets the host's own programs reach what is published by the
// host's loopback, after the rules are there that keep others from it.
//
// For IPv4 that is a sysctl of the router's device. For ::1 the kernel looks
// routes up strictly by device (rt6_need_strict), so that an answer finds none:
// it gets one there. What comes with ::1 by a wire is dropped before (ip6_rcv).
func (h *Host) openLoopback(p *plan) error {
	for _, s := range p.sides {
		if !s.loopback {
			continue
		}
		if p.v6 {
			if err := h.addLocalRoute(s.device); err != nil {
				return err
			}
			continue
		}
		if on, err := hasLocalnet(s.device); err != nil {
			return err
		} else if on { // somebody else's doing, or ours
			continue
		}
		k := routeLocalnet(s.device)
		if v, err := k.value(); err != nil {
			return err
		} else if v == "" { // the device is gone; if it comes back, Watch looks again
			continue
		}
		if err := h.switched.note(k, "1"); err != nil {
			return err
		}
		if err := k.set("1"); err != nil {
			if now, gone := k.value(); gone == nil && now == "" {
				continue
			}
			return err
		}
	}
	return nil
}

// hasLocalnet reports whether route_localnet is on for a device, or for all.
func hasLocalnet(device string) (bool, error) {
	for _, k := range []knob{routeLocalnet("all"), routeLocalnet(device)} {
		if v, err := k.value(); err != nil || v != "" && v != "0" {
			return true, err
		}
	}
	return false, nil
}

// closeLoopback takes back what openLoopback did for devices that need it no
// more, while the rules are still there.
func (h *Host) closeLoopback(p *plan) error {
	needed := func(dev string) bool {
		return slices.ContainsFunc(p.sides, func(s side) bool { return s.device == dev && s.loopback })
	}
	if p.v6 {
		return h.removeLocalRoutes(needed)
	}
	for k := range h.switched.set {
		if k != routeLocalnet(k.device()) || needed(k.device()) {
			continue
		}
		now, err := k.value()
		if err != nil {
			return err
		}
		if now != "" && now == h.switched.set[k] {
			if err := k.set("0"); err != nil {
				if now, gone := k.value(); gone != nil || now != "" {
					return err
				}
			}
		}
		if err := h.switched.forget(k); err != nil {
			return err
		}
	}
	return nil
}

func localRoute(index int) *netlink.Route {
	return &netlink.Route{
		LinkIndex: index, Dst: &net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Priority: localMetric + index,
	}
}

// addLocalRoute adds one beside those of other devices; the kernel calls the very
// same one a duplicate. It is noted before: the device may outlive us.
func (h *Host) addLocalRoute(device string) error {
	link, err := netlink.LinkByName(device)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil // if it comes back, Watch looks again
	}
	if err == nil {
		err = h.switched.noteRoute(device)
	}
	if err == nil {
		if err = netlink.RouteAppend(localRoute(link.Attrs().Index)); errors.Is(err, unix.EEXIST) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("add a route for ::1 to %s: %w", device, err)
	}
	return nil
}

// removeLocalRoutes removes those that this instance has added, in this life or a
// former one, for devices that do not need theirs.
func (h *Host) removeLocalRoutes(needed func(device string) bool) error {
	for _, device := range slices.Sorted(maps.Keys(h.switched.routes)) {
		if needed(device) {
			continue
		}
		link, err := netlink.LinkByName(device)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			err = nil // and the route with it
		} else if err == nil {
			err = netlink.RouteDel(localRoute(link.Attrs().Index))
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route for ::1 from %s: %w", device, err)
		}
		if err := h.switched.forgetRoute(device); err != nil {
			return err
		}
	}
	return nil
}

// inherited reports whether a former emperor of the instance published
// something, about which nobody has said yet whether it goes on.
func (h *Host) inherited(v6 bool) (bool, error) {
	if h.asked || v6 && !hasIPv6() {
		return false, nil
	}
	f, err := h.filter(v6)
	if errors.Is(err, errNoIPTables) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !f.uses("nat") { // and it may be one that the kernel cannot have
		return false, nil
	}
	names, err := f.chainNames("nat")
	return slices.Contains(names, h.base+"-pre"), err
}
