package nat

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"fiefdom/internal/dump"
)

func allForwarding(v6 bool) knob { return deviceKnob(v6, "all", "forwarding") }

// forwardingOf is the knob that makes packets that come in by the device be
// forwarded. For IPv6 it is there since Linux 6.17; conf.DEV.forwarding is
// something else there (whether we behave as a router to our neighbours).
func forwardingOf(v6 bool, device string) knob {
	if v6 {
		return deviceKnob(true, device, "force_forwarding")
	}
	return deviceKnob(false, device, "forwarding")
}

// perDevice reports whether the family can forward by single devices.
func (h *Host) perDevice(v6 bool) (bool, error) {
	if !v6 {
		return true, nil
	}
	if h.oldIPv6 {
		return false, nil
	}
	v, err := forwardingOf(true, "lo").value()
	return v != "", err
}

// setting is one sysctl to be written.
type setting struct {
	knob  knob
	value string
}

// planForwarding lists, and notes, what has to be set for the devices to
// forward packets of one family. It sets nothing: the guards come first.
func (h *Host) planForwarding(v6 bool, devices []string) ([]setting, error) {
	off, err := allForwarding(v6).isOff()
	if err != nil {
		return nil, err
	}
	single, err := h.perDevice(v6)
	if err != nil {
		return nil, err
	}
	var plan []setting
	switch {
	case v6 && !off: // IPv6 then forwards whatever the devices say
		return nil, nil
	case !single:
		if plan, err = keepRouterAdvertisements(); err != nil {
			return nil, err
		}
		plan = append(plan, setting{allForwarding(true), "1"})
	default:
		for _, dev := range devices {
			k := forwardingOf(v6, dev)
			off, err := k.isOff()
			if err != nil {
				return nil, err
			}
			if off {
				plan = append(plan, setting{k, "1"})
			}
		}
	}
	for _, s := range plan {
		if err := h.switched.note(s.knob, s.value); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// keepRouterAdvertisements lets devices that follow router advertisements go on
// doing so: with forwarding on, accept_ra = 1 means no, and the kernel also
// removes the default route that it learnt (Documentation/networking/ip-sysctl.rst).
func keepRouterAdvertisements() (plan []setting, err error) {
	links, err := foreignLinks()
	if err != nil {
		return nil, err
	}
	for _, dev := range links {
		k := deviceKnob(true, dev, "accept_ra")
		v, err := k.value()
		if err != nil {
			return nil, err
		}
		off, err := deviceKnob(true, dev, "forwarding").isOff()
		if err != nil {
			return nil, err
		}
		if v == "1" && off {
			plan = append(plan, setting{k, "2"})
		}
	}
	return plan, nil
}

// guards lists the devices that forward only because of us, those of networks
// that are masqueraded aside. Once somebody else has switched forwarding on for all devices it is no
// longer because of us. Where IPv6 can only be switched on for all, and we did
// it, that is every device but those of other instances' routers.
func (h *Host) guards(v6 bool) ([]string, error) {
	off, err := allForwarding(v6).isOff()
	if err != nil {
		return nil, err
	}
	single, err := h.perDevice(v6)
	if err != nil {
		return nil, err
	}
	var devices []string
	switch {
	case single && off:
		devices = h.switched.devices(v6)
	case !single && h.switched.set[allForwarding(v6)] != "":
		if devices, err = foreignLinks(); err != nil {
			return nil, err
		}
		for _, n := range h.nets {
			if !slices.Contains(devices, n.Device) {
				devices = append(devices, n.Device)
			}
		}
	}
	masqueraded := h.masqueraded()
	return slices.DeleteFunc(devices, func(dev string) bool { return slices.Contains(masqueraded, dev) }), nil
}

// adoptGuards takes over the duty for what another instance made forward, as
// its guards tell: we rely on it too, and must guard it when that one is gone.
func (h *Host) adoptGuards(v6 bool, devices []string) error {
	off, err := allForwarding(v6).isOff()
	if err != nil || len(devices) == 0 {
		return err
	}
	single, err := h.perDevice(v6)
	if err != nil {
		return err
	}
	switch {
	case single && off:
		for _, dev := range devices {
			if err := checkDevice(dev); err != nil {
				continue // not written by us
			}
			k := forwardingOf(v6, dev)
			if v, err := k.value(); err != nil {
				return err
			} else if v == "1" {
				if err := h.switched.note(k, "1"); err != nil {
					return err
				}
			}
		}
	case !single && !off:
		return h.switched.note(allForwarding(v6), "1")
	}
	return nil
}

// foreignLinks lists the devices that are neither loopback nor a tun or tap:
// those are routers of some instance, or somebody's VPN. Ports of a bridge or a
// bond are left out, since packets come in by that.
func foreignLinks() ([]string, error) {
	links, err := dump.Links()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	kinds := map[int]string{}
	for _, link := range links {
		kinds[link.Attrs().Index] = link.Type()
	}
	var names []string
	for _, link := range links {
		name, master := link.Attrs().Name, kinds[link.Attrs().MasterIndex]
		port := slices.Contains([]string{"bridge", "bond", "team"}, master)
		// A vassal's end is one too as soon as it is plugged in.
		end := link.Type() == "veth" && strings.HasPrefix(link.Attrs().Alias, "fiefdom ")
		if name != "lo" && link.Type() != "tuntap" && !port && !end && checkDevice(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// forwarders are the devices that packets come in by which are for somebody
// else: those of networks, their uplinks, and where something is published, all
// by which somebody may come. A tun that is not ours is somebody else's router,
// but one with an address that something is published on is a VPN.
func (h *Host) forwarders(p *plan) ([]string, error) {
	devices := map[string]bool{}
	for _, s := range p.sides {
		devices[s.device] = true
		for _, uplink := range s.uplinks {
			devices[uplink] = true
		}
	}
	if slices.ContainsFunc(p.published, func(one Published) bool { return !one.Host.IsLoopback() }) {
		links, err := foreignLinks()
		if err != nil {
			return nil, err
		}
		for _, n := range h.nets {
			if _, ok := ofFamily(&n, p.v6, nil); ok {
				links = append(links, n.Device)
			}
		}
		holders, err := holders(p.published, p.v6)
		if err != nil {
			return nil, err
		}
		for _, dev := range append(links, holders...) {
			devices[dev] = true
		}
	}
	return slices.Sorted(maps.Keys(devices)), nil
}

// holders are the devices, loopback aside, that have an address by which
// something is published alone.
func holders(list []Published, v6 bool) (devices []string, err error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	addrs, err := dump.Addrs(nil, family)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		on := func(p Published) bool { return p.Host == addrOf(a.IP) && !p.Host.IsLoopback() }
		if !slices.ContainsFunc(list, on) {
			continue
		}
		link, err := netlink.LinkByIndex(a.LinkIndex)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up device %d: %w", a.LinkIndex, err)
		}
		if name := link.Attrs().Name; name != "lo" && checkDevice(name) == nil {
			devices = append(devices, name)
		}
	}
	return devices, nil
}
