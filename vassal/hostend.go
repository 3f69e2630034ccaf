package vassal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/dump"
	"fiefdom/internal/netns"
)

// HostEnd is the host's end of a device that is in a kernel's bridge.
type HostEnd struct {
	Device string // its name on the host
	Bridge string
	MAC    net.HardwareAddr // of the vassal's end
	Addrs  []netip.Addr     // that the vassal may have
	MTU    int              // the bridge's
	Alone  bool             // isolated from other such ends
	Open   bool             // the vassal publishes something
}

// Plugger says what may come out of host ends, before they are in their bridge and
// after they are gone.
type Plugger struct {
	Admit   func(HostEnd) error
	Release func(device string) error
}

// hostEndName is a name that tells the instance, and no other device has: 55 bits
// of a hash, so that neither chance nor a vassal's chosen name finds another's.
func hostEndName(instance, vassal, device string) string {
	short := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, instance)
	const most = unix.IFNAMSIZ - 1
	name := short[:min(len(short), 3)] + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(endSum(instance, vassal, device)))
	return name[:most]
}

// macOf is the MAC of a vassal's end. It stays with the name, so that neighbours
// need not learn another one with each jail.
func macOf(instance, vassal, device string) net.HardwareAddr {
	mac := slices.Clone(endSum("mac", instance, vassal, device)[:6])
	mac[0] = mac[0]&^1 | 2 // of one machine, and nobody's by birth (IEEE 802, local)
	return mac
}

func endSum(words ...string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return sum[:]
}

// endAlias is what a host end is known by: to whoever looks, and to the next emperor.
func endAlias(instance, vassal, device string) string {
	return endAliasPrefix(instance) + vassal + " " + device
}

// endAliasPrefix begins the alias of every host end of an instance.
func endAliasPrefix(instance string) string { return "fiefdom " + instance + " vassal " }

// Plugged fills in what a link in a bridge needs: the names and the MAC of its ends.
func (l *Link) Plugged(instance, vassal, bridge string, mtu int, alone bool) {
	l.Bridge, l.BridgeMTU, l.Alone = bridge, mtu, alone
	l.HostEnd, l.MAC = hostEndName(instance, vassal, l.Device), macOf(instance, vassal, l.Device).String()
	l.Alias = endAlias(instance, vassal, l.Device)
}

func (l *Link) hostEnd() (HostEnd, error) {
	mac, err := net.ParseMAC(l.MAC)
	e := HostEnd{Device: l.HostEnd, Bridge: l.Bridge, MAC: mac, MTU: l.BridgeMTU, Alone: l.Alone, Open: l.Open}
	for _, a := range l.Addresses {
		e.Addrs = append(e.Addrs, a.Addr())
	}
	return e, err
}

// HostEnds are those of the jail's devices.
func (j *Jail) HostEnds() []HostEnd {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []HostEnd
	for _, l := range j.links {
		if l.Bridge == "" {
			continue
		}
		if e, err := l.hostEnd(); err == nil {
			all = append(all, e)
		}
	}
	return all
}

// makeEnds makes the pairs of devices for the links in bridges: one end in the
// jail, the other on the host, in no bridge yet. It runs in the host's namespace.
func (j *Jail) makeEnds(links []Link) error {
	for _, l := range links {
		if l.Bridge == "" {
			continue
		}
		if err := removeStale(&l); err != nil {
			return err
		}
		host, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("device %s: %w", l.Device, err)
		}
		err = netns.Do(j.ns, func() error { return l.makePair(int(host.Fd())) })
		if err := errors.Join(err, host.Close()); err != nil {
			return fmt.Errorf("device %s, by %s on the host: %w", l.Device, l.HostEnd, err)
		}
		// gofail: var hostEndMade struct{}
	}
	return nil
}

// makePair makes the two ends in the jail's namespace, where it runs, and puts one
// on the host: there it has its alias, by which it is known, from the first moment.
// The kernel takes none for a device that is only being made.
func (l *Link) makePair(host int) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer handle.Close()
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = l.HostEnd, l.BridgeMTU, endMAC(mac)
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr, pair.PeerMTU = l.Device, mac, uint32(l.MTU)
	if err := handle.LinkAdd(pair); err != nil {
		return err
	}
	end, err := handle.LinkByName(l.HostEnd)
	if err != nil {
		return err
	}
	if err := handle.LinkSetAlias(end, l.Alias); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	if err := handle.LinkSetNsFd(end, host); err != nil {
		return fmt.Errorf("put it on the host: %w", err)
	}
	return nil
}

// endMAC is that of the host's end: a bridge may take the lowest of its ports'
// for its own, and is never to take this one.
func endMAC(mac net.HardwareAddr) net.HardwareAddr {
	return append(net.HardwareAddr{0xfe}, mac[1:]...)
}

// IsHostEnd says whether a device is the host's end of one of the instance's vassals.
func IsHostEnd(instance string, link netlink.Link) bool {
	return strings.HasPrefix(link.Attrs().Alias, endAliasPrefix(instance))
}

// removeStale removes what an earlier jail of the vassal has left under the name.
func removeStale(l *Link) error {
	old, err := netlink.LinkByName(l.HostEnd)
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", l.HostEnd, err)
	}
	mac, err := net.ParseMAC(l.MAC)
	if err != nil || !bytes.Equal(old.Attrs().HardwareAddr, endMAC(mac)) {
		return fmt.Errorf("the host has a device %s that is not this vassal's (%q); rename that one: ip link set %[1]s name NAME", l.HostEnd, old.Attrs().Alias)
	}
	return removeEnd(l.HostEnd)
}

// removeEnd removes a host end, and with it the jail's. One that is gone is fine.
func removeEnd(name string) error {
	end, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(end)
	}
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); err == nil || none {
		return nil
	}
	if _, lerr := netlink.LinkByName(name); lerr != nil {
		return nil //nolint:nilerr // it went by itself, with its namespace
	}
	return fmt.Errorf("remove device %s: %w", name, err)
}

// KeptBy says who keeps the rules of the host's ends that an earlier emperor has let
// in: whoever leaves before he is plugged in again has rules to be released, too.
func (j *Jail) KeptBy(p *Plugger) {
	j.joining.Lock()
	defer j.joining.Unlock()
	for _, l := range j.links {
		if l.Bridge != "" {
			l.plugger = p
		}
	}
}

// Plug puts the host's ends into their bridges, where they may not be yet. It is
// called for a new jail, and again by an emperor who has adopted it.
func (j *Jail) Plug(p *Plugger) error {
	j.joining.Lock()
	defer j.joining.Unlock()
	for _, l := range j.links {
		if l.Bridge == "" || j.left {
			continue
		}
		if p == nil {
			return fmt.Errorf("device %s: nobody here keeps the rules of kernel's bridges", l.Device)
		}
		end, err := l.hostEnd()
		if err == nil {
			err = p.Admit(end)
		}
		if err != nil {
			return fmt.Errorf("device %s: %w", l.Device, err)
		}
		// gofail: var hostEndAdmitted struct{}
		l.plugger = p
		if err := end.plug(); err != nil {
			return fmt.Errorf("device %s: %w", l.Device, err)
		}
		// gofail: var hostEndPlugged struct{}
		j.mu.Lock()
		l.registered = nil
		for _, a := range l.Addresses {
			l.registered = append(l.registered, a.Addr())
		}
		j.mu.Unlock()
	}
	return nil
}

// plug puts the end into the bridge. What keeps it from others comes first.
func (e *HostEnd) plug() error {
	link, err := netlink.LinkByName(e.Device)
	if err != nil {
		return fmt.Errorf("the host's end %s: %w", e.Device, err)
	}
	bridge, err := netlink.LinkByName(e.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", e.Bridge, err)
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("put %s into bridge %s: %w", e.Device, e.Bridge, err)
		}
	}
	// It is still down: no frame has passed it.
	if err := netlink.LinkSetIsolated(link, e.Alone && !e.Open); err != nil {
		return fmt.Errorf("isolate %s in bridge %s: %w", e.Device, e.Bridge, err)
	}
	if err := netlink.LinkSetHairpin(link, e.Open); err != nil {
		return fmt.Errorf("%s, for what the vassal publishes: %w", e.Device, err)
	}
	if err := netlink.LinkSetRootBlock(link, true); err != nil {
		return fmt.Errorf("keep %s from being a root of bridge %s: %w", e.Device, e.Bridge, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up %s: %w", e.Device, err)
	}
	return nil
}

// Opened notes whether the jail's vassal publishes something. The kernel takes a
// packet from one vassal of a bridge to another's published port for one from port
// to port (br_netfilter), which its own isolation would not let pass; the rules do,
// that and nothing else.
func (j *Jail) Opened(open bool) error {
	j.joining.Lock()
	defer j.joining.Unlock()
	var errs []error
	for _, l := range j.links {
		if l.Bridge == "" || l.Open == open || j.left {
			continue
		}
		end, err := netlink.LinkByName(l.HostEnd)
		if err == nil {
			err = errors.Join(netlink.LinkSetIsolated(end, l.Alone && !open), netlink.LinkSetHairpin(end, open))
		}
		if err != nil { // it is tried again
			errs = append(errs, fmt.Errorf("%s, for what the vassal publishes: %w", l.HostEnd, err))
			continue
		}
		j.mu.Lock()
		l.Open = open
		j.mu.Unlock()
	}
	return errors.Join(errs...)
}

// unplug is part of Leave, under its lock: the jail's devices go with the host's
// ends, so that nobody has their addresses any more.
func (j *Jail) unplug() error {
	var errs []error
	for _, l := range j.links {
		if l.Bridge == "" {
			continue
		}
		errs = append(errs, removeEnd(l.HostEnd))
		// gofail: var hostEndRemoved struct{}
		if l.plugger != nil {
			errs = append(errs, l.plugger.Release(l.HostEnd))
		}
	}
	return errors.Join(errs...)
}

// unplugged says whether the host's end of a device is gone, or out of its bridge.
func (l *link) unplugged() bool {
	end, err := netlink.LinkByName(l.HostEnd)
	if err != nil {
		return true
	}
	bridge, err := netlink.LinkByName(l.Bridge)
	return err != nil || end.Attrs().MasterIndex != bridge.Attrs().Index
}

// RemoveEnds removes the host ends of an instance that are not among those to be kept.
func RemoveEnds(instance string, keep []HostEnd) error {
	links, err := dump.Links()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if !IsHostEnd(instance, l) || slices.ContainsFunc(keep, func(e HostEnd) bool { return e.Device == name }) {
			continue
		}
		errs = append(errs, removeEnd(name))
	}
	return errors.Join(errs...)
}
