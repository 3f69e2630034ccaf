package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/internal/dump"
	"fiefdom/tuntap"
	"fiefdom/vassal"
)

// kernelBridges is the host's side of kernel's bridges. Its methods are safe for
// concurrent use.
type kernelBridges struct {
	instance  string
	log       *slog.Logger
	rules     *nat.Bridges
	resolvers func() []netip.Addr
	resolv    func(device, text string) (path string, err error)
	masq      func([]nat.Network) error // puts the host's rules for these bridges in force
	names     bridgeNames

	mu    sync.Mutex // held while iptables is waited for
	known map[string]emperor.KernelBridge
	masqs []nat.Network

	looking sync.Mutex // the emperor's loop looks
	uplinks map[string]uplink
}

// bridgeMAC is by what an instance knows the bridges that it has made: it is set as
// they are made. Else it would be that of whatever port has the lowest, and change
// with them.
func bridgeMAC(instance, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(instance + "\x00" + name))
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

func (k *kernelBridges) ours(link netlink.Link) bool {
	return link.Type() == "bridge" && bytes.Equal(link.Attrs().HardwareAddr, bridgeMAC(k.instance, link.Attrs().Name))
}

// look completes what is asked for with what the host has.
func (k *kernelBridges) look(b *emperor.KernelBridge) error {
	link, err := netlink.LinkByName(b.Device)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return k.plan(b)
	}
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", b.Device, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("the host has a device %s that is no bridge (%s); choose another name, such as %s", b.Device, link.Type(), freeName("br"))
	}
	if name := link.Attrs().Name; name != b.Device { // by which the rules would not know it
		return fmt.Errorf("%s is another name of bridge %s; write bridge:%[2]s", b.Device, name)
	}
	b.MTU, b.Ours = link.Attrs().MTU, k.ours(link)
	if !b.Ours && link.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("bridge %s is down; take it up: ip link set %[1]s up", b.Device)
	}
	has, err := addressesOf(link)
	if err != nil {
		return err
	}
	switch {
	case len(b.Addresses) == 0:
		b.Addresses = has
	case b.Ours:
	default:
		for _, a := range b.Addresses {
			if !slices.Contains(has, a) {
				return fmt.Errorf("bridge %s is there without the address %s (it has: %v); add it with ip addr add %s dev %[1]s, or write no address", b.Device, a, has, a)
			}
		}
	}
	k.settle(b)
	if b.Ours {
		return nil
	}
	return k.findGateways(b, link.Attrs().Index)
}

// plan is for a bridge that is to be made.
func (k *kernelBridges) plan(b *emperor.KernelBridge) error {
	if len(b.Addresses) == 0 {
		return fmt.Errorf("there is no bridge %s; give it an address to have it made: bridge:%[1]s 10.100.0.1/24", b.Device)
	}
	b.Ours = true
	var pool []netip.Prefix
	for _, a := range b.Addresses {
		pool = append(pool, a.Masked())
	}
	if err := nat.Clash(pool, b.Device); err != nil {
		return fmt.Errorf("bridge %s: %w", b.Device, err)
	}
	k.settle(b)
	return nil
}

// settle fills in what nobody has said.
func (k *kernelBridges) settle(b *emperor.KernelBridge) {
	if b.NAT == "" {
		if b.NAT = "off"; b.Ours {
			b.NAT = nat.Auto
		}
	}
}

// uplink is what the host's routes said about a bridge.
type uplink struct {
	seen     time.Time
	gateways []netip.Addr
}

// uplinkTime is how long that counts: a host can have very many routes, and an
// emperor very many vassals.
const uplinkTime = 2 * time.Second

// findGateways takes the host's default route for the vassals' where it leads
// through the bridge: then the bridge is the host's uplink, and not the other way round.
func (k *kernelBridges) findGateways(b *emperor.KernelBridge, index int) error {
	k.looking.Lock()
	defer k.looking.Unlock()
	u, ok := k.uplinks[b.Device]
	if !ok || time.Since(u.seen) > uplinkTime {
		gateways, err := defaultGateways(index)
		if err != nil {
			return fmt.Errorf("routes of bridge %s: %w", b.Device, err)
		}
		u = uplink{time.Now(), gateways}
		k.uplinks[b.Device] = u
	}
	b.Uplink, b.Gateways = len(u.gateways) > 0, u.gateways
	return nil
}

func defaultGateways(index int) (all []netip.Addr, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump.Whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{LinkIndex: index}, netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			ones := 0
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			gw, ok := netip.AddrFromSlice(r.Gw)
			if ones == 0 && ok {
				all = append(all, gw.Unmap())
			}
		}
	}
	return all, nil
}

// addressesOf are those of a bridge that can be a network's.
func addressesOf(link netlink.Link) (all []netip.Prefix, err error) {
	addrs, err := dump.Addrs(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of bridge %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if p := netip.PrefixFrom(ip.Unmap(), ones); ok && !p.Addr().IsLinkLocalUnicast() && p.Addr().BitLen()-ones >= 2 {
			all = append(all, p)
		}
	}
	return all, nil
}

// make sees to it that a bridge is there, with its rules.
func (k *kernelBridges) make(b emperor.KernelBridge) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ok := k.known[b.Device]; ok && reflect.DeepEqual(old, b) && k.there(b.Device) && !k.unnamed(&b) {
		return nil
	}
	if b.Ours {
		if err := k.makeDevice(&b); err != nil {
			return err
		}
	}
	// gofail: var kernelBridgeMade struct{}
	resolvers := k.resolvers()
	port, resolv := k.name(&b, resolvers)
	if _, err := k.resolv(b.Device, resolv); err != nil {
		return err
	}
	if err := k.rules.Add(rulesOf(&b, resolvers, port)); err != nil {
		return err
	}
	// gofail: var kernelBridgeRuled struct{}
	if err := k.masquerade(&b, port); err != nil {
		return err
	}
	k.known[b.Device] = b
	return nil
}

func (k *kernelBridges) there(name string) bool {
	link, err := netlink.LinkByName(name)
	return err == nil && link.Type() == "bridge"
}

func rulesOf(b *emperor.KernelBridge, resolvers []netip.Addr, namesAt uint16) nat.Bridge {
	r := nat.Bridge{Name: b.Device, Isolate: b.Isolated, Ours: b.Ours, Resolvers: resolvers, NamesAt: namesAt}
	for _, a := range b.Addresses {
		r.Pool, r.Own = append(r.Pool, a.Masked()), append(r.Own, a.Addr())
	}
	return r
}

// makeDevice makes a bridge, or makes one of ours whole again.
func (k *kernelBridges) makeDevice(b *emperor.KernelBridge) error {
	link, err := netlink.LinkByName(b.Device)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = b.Device, bridgeMAC(k.instance, b.Device)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("make it: %w", err)
		}
		// gofail: var kernelBridgeAdded struct{}
		link, err = netlink.LinkByName(b.Device)
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(link, "fiefdom "+k.instance); err != nil { // for whoever looks
		return fmt.Errorf("alias: %w", err)
	}
	for _, a := range b.Addresses {
		if err := giveAddress(link, a); err != nil {
			return err
		}
	}
	if err := removeOthers(link, b.Addresses); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

// removeOthers takes the addresses from a bridge of ours that it had by another ini.
func removeOthers(link netlink.Link, wanted []netip.Prefix) error {
	has, err := addressesOf(link)
	if err != nil {
		return err
	}
	for _, a := range has {
		if slices.Contains(wanted, a) {
			continue
		}
		if err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove the former address %s: %w", a, err)
		}
	}
	return nil
}

// masquerade puts the host's rules for a bridge in force.
func (k *kernelBridges) masquerade(b *emperor.KernelBridge, namesAt uint16) error {
	all := slices.DeleteFunc(slices.Clone(k.masqs), func(n nat.Network) bool { return n.Device == b.Device })
	before := k.masqs
	k.masqs = append(all, natOf(b, namesAt))
	err := k.masq(k.masqs)
	if err != nil {
		k.masqs = before // or no other bridge could be made any more
	}
	return err
}

func natOf(b *emperor.KernelBridge, namesAt uint16) nat.Network {
	n := nat.Network{Device: b.Device, Shared: !b.Ours, NamesAt: namesAt}
	if b.NAT != "off" {
		n.Masquerade = b.NAT
	}
	if b.Ours {
		n.Flows = tuntap.DefaultFlows
	}
	for _, a := range b.Addresses {
		n.Pool, n.Gateways = append(n.Pool, a.Masked()), append(n.Gateways, a.Addr())
	}
	return n
}

// removeOurs removes the bridges of an instance that nobody has a port in.
func (k *kernelBridges) removeOurs(keep func(name string) bool) error {
	links, err := dump.Links()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if !k.ours(l) || keep(name) {
			continue
		}
		if i := slices.IndexFunc(links, func(p netlink.Link) bool {
			return p.Attrs().MasterIndex == l.Attrs().Index && !vassal.IsHostEnd(k.instance, p)
		}); i >= 0 {
			k.log.Warn("bridge stays: somebody else has a port in it", "bridge", name, "port", links[i].Attrs().Name)
			continue
		}
		errs = append(errs, netlink.LinkDel(l))
		// gofail: var kernelBridgeRemoved struct{}
	}
	return errors.Join(errs...)
}

// freeName is a name for a device that the host has not.
func freeName(prefix string) string {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s%d", prefix, n)
		if _, err := netlink.LinkByName(name); err != nil {
			return name
		}
	}
}
