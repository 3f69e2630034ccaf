package nat

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/dump"
)

// defaultDevices returns the devices of the default route with the lowest
// metric, those of routers of ours aside; none if there is no such route.
func defaultDevices(v6 bool, own []string) ([]string, error) {
	routes, err := mainRoutes(v6)
	if err != nil {
		return nil, err
	}
	var devices []string
	best := 0
	for _, r := range routes {
		if ones := maskBits(&r); ones != 0 || r.Type != unix.RTN_UNICAST {
			continue
		}
		names, err := routeDevices(&r)
		if err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(names, func(s string) bool { return slices.Contains(own, s) || checkDevice(s) != nil })
		if len(names) == 0 || len(devices) > 0 && r.Priority > best {
			continue
		}
		if r.Priority < best {
			devices = nil
		}
		devices, best = append(devices, names...), r.Priority
	}
	slices.Sort(devices)
	return slices.Compact(devices), nil
}

// mainRoutes lists the main table.
func mainRoutes(v6 bool) (routes []netlink.Route, err error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	routes, err = dump.Whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

func maskBits(r *netlink.Route) int {
	if r.Dst == nil {
		return 0
	}
	ones, _ := r.Dst.Mask.Size()
	return ones
}

// routeDevices names the devices of all next hops that are still there.
func routeDevices(r *netlink.Route) (names []string, err error) {
	indexes := []int{r.LinkIndex}
	for _, hop := range r.MultiPath {
		indexes = append(indexes, hop.LinkIndex)
	}
	for _, index := range indexes {
		if index == 0 {
			continue
		}
		link, err := netlink.LinkByIndex(index)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up device %d: %w", index, err)
		}
		names = append(names, link.Attrs().Name)
	}
	return names, nil
}
