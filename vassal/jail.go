package vassal

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/tuntap"
)

// Link is one device of a jail, as the emperor worked it out from the vassal's
// ini, the networks and the leases.
type Link struct {
	Device    string
	Network   string         // the router's device; empty: no router
	Socket    string         // the router's
	Foreign   bool           // the router is not this emperor's: a bridge carries the packets
	Greeting  Greeting       // what a foreign router is told
	Addresses []netip.Prefix // set natively, with the network's prefix length; empty: hooks do it
	Gateways  []netip.Addr   // default routes, at most one a family
	MTU       int            // bytes
	Rules     []tuntap.DeviceRule
}

// Greeting is who a device is, for a router that asks for credentials.
type Greeting struct {
	Credentials bool
	UID, GID    int // the app's
}

// Jail is a vassal's network namespace with its devices and registrations. It
// outlives the processes in it. Its methods are safe for concurrent use.
type Jail struct {
	Name  string
	Inode uint64 // of the namespace, as /proc/PID/ns/net shows it; 0: the emperor's

	ns nsh.NsHandle

	joining sync.Mutex // one conversation with the routers at a time; before mu

	mu    sync.Mutex // never held while a router is waited for: the emperor's loop asks for addresses
	links []*link
	seen  struct{ rx, tx, full uint64 } // by Traffic, the last time
	left  bool                          // it is on its way out: no router gets its devices any more; guarded by joining
}

// link is a device that the jail holds. The jail's descriptor of it is a
// duplicate that nobody reads: it keeps the link up while the router is away.
type link struct {
	Link
	dev        *tuntap.Device
	life       *tuntap.Lifeline
	bridge     *Bridge               // of a foreign router's device
	broken     bool                  // the bridge found the device gone
	announced  []tuntap.Announcement // by the bridge
	restored   bool                  // it is another emperor's
	unsure     bool                  // the router has not said yet which rules it has
	registered []netip.Addr
	ready      chan struct{} // closed when every native address is registered
	once       sync.Once     // of ready
}

// NewJail makes the namespace and everything in it that needs no router: the
// devices, the loopback, the native addresses and routes. Close undoes it.
// Without own the vassal lives in the emperor's namespace and has no links.
func NewJail(name string, own bool, links []Link) (*Jail, error) {
	if !own {
		return &Jail{Name: name, ns: nsh.None()}, nil
	}
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	// gofail: var namespaceMade struct{}
	j := &Jail{Name: name, ns: ns}
	if j.Inode, err = netns.Inode(ns); err == nil {
		err = netns.Do(ns, func() error { return j.furnish(links) })
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// furnish runs inside the namespace.
func (j *Jail) furnish(links []Link) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer handle.Close()
	native := slices.ContainsFunc(links, func(l Link) bool { return len(l.Addresses) > 0 })
	if native {
		if err := jailSysctls(); err != nil {
			return err
		}
		lo, err := handle.LinkByName("lo")
		if err == nil {
			err = handle.LinkSetUp(lo)
		}
		if err != nil {
			return fmt.Errorf("loopback up: %w", err)
		}
	}
	routed := map[bool]bool{} // families that have their default route, by Is4
	for _, spec := range links {
		open := tuntap.OpenDevice
		if spec.Foreign {
			open = tuntap.OpenPlainDevice
		}
		dev, err := open(spec.Device)
		if err != nil {
			return fmt.Errorf("device %s: %w", spec.Device, err)
		}
		// gofail: var deviceMade struct{}
		l := &link{Link: spec, dev: dev, ready: make(chan struct{})}
		j.links = append(j.links, l)
		if len(spec.Addresses) == 0 {
			l.setReady()
			continue
		}
		if err := l.configure(handle, routed); err != nil {
			return fmt.Errorf("device %s: %w", spec.Device, err)
		}
	}
	return nil
}

// jailSysctls gives an app without capabilities what it would expect of a
// machine of its own: low ports and ping.
func jailSysctls() error {
	for name, value := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "0",
		"net/ipv4/ping_group_range":           "0 2147483647",
	} {
		if err := sysctl(name, value); err != nil {
			return err
		}
	}
	return nil
}

// sysctl writes one of the calling thread's namespace: /proc/sys/net follows
// the thread that opens it.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without the feature, IPv6 for one, has nothing to set
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

// configure sets addresses and routes by netlink. The kernel's IPv6
// autoconfiguration is switched off first: the router answers none of it. Of
// several devices the first has the default route of its families.
func (l *link) configure(handle *netlink.Handle, routed map[bool]bool) error {
	six := slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	conf := "net/ipv6/conf/" + l.Device + "/"
	settings := [][2]string{{"disable_ipv6", "1"}}
	if six {
		settings = [][2]string{{"addr_gen_mode", "1"}, {"accept_ra", "0"}, {"accept_dad", "0"}, {"accept_redirects", "0"}, {"router_solicitations", "0"}}
	}
	for _, s := range settings {
		if err := sysctl(conf+s[0], s[1]); err != nil {
			return err
		}
	}
	dev, err := handle.LinkByName(l.Device)
	if err != nil {
		return err
	}
	if err := handle.LinkSetMTU(dev, l.MTU); err != nil {
		return fmt.Errorf("mtu %d: %w", l.MTU, err)
	}
	if err := handle.LinkSetTxQLen(dev, QueueLength); err != nil {
		return fmt.Errorf("queue length: %w", err)
	}
	for _, a := range l.Addresses {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := handle.AddrAdd(dev, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	if err := handle.LinkSetUp(dev); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	for _, r := range l.routes(dev.Attrs().Index, routed) {
		if err := handle.RouteAdd(&r); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
}

// routes are the device's default routes, for families that have none yet.
func (l *link) routes(index int, routed map[bool]bool) []netlink.Route {
	if l.Foreign {
		return l.foreignRoutes(index, routed)
	}
	var all []netlink.Route
	for _, gw := range l.Gateways {
		if !routed[gw.Is4()] {
			routed[gw.Is4()] = true
			all = append(all, netlink.Route{LinkIndex: index, Gw: gw.AsSlice()})
		}
	}
	return all
}

// QueueLength is a device's ring in packets: what waits there survives a router
// that is being started again.
const QueueLength = 1000

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// HandOver gives every device to its router, with the registrations that it
// had. It is called for a new jail and again for each new router process.
func (j *Jail) HandOver() error {
	j.joining.Lock()
	defer j.joining.Unlock()
	if j.left {
		return nil // its addresses may be somebody else's already
	}
	for _, l := range j.links {
		if l.Network == "" {
			continue
		}
		if old := j.setLife(l, nil); old != nil {
			_ = old.Close() // of a router that is gone
		}
		j.mu.Lock()
		h := l.handover(j.Name)
		j.mu.Unlock()
		life, err := tuntap.HandOver(l.Socket, l.dev, h)
		if err != nil {
			return fmt.Errorf("hand device %s over to %s: %w", l.Device, l.Socket, err)
		}
		// gofail: var deviceHandedOver struct{}
		j.setLife(l, life)
	}
	return nil
}

func (j *Jail) setLife(l *link, life *tuntap.Lifeline) (old *tuntap.Lifeline) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, l.life = l.life, life
	return old
}

func (l *link) handover(name string) tuntap.Handover {
	h := tuntap.Handover{Vassal: name, Registered: slices.Clone(l.registered), Rules: l.Rules}
	for _, a := range l.Addresses {
		h.May = append(h.May, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	return h
}

// Registered notes that the router gave addr to the jail. The router is a
// process without rights: its word cannot add addresses without end, nor one
// that a native device does not have.
func (j *Jail) Registered(network string, addr netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.links {
		if l.Network != network || slices.Contains(l.registered, addr) || !l.mayHave(addr) {
			continue
		}
		l.registered = append(l.registered, addr)
		if l.complete() {
			l.setReady()
		}
	}
}

func (l *link) mayHave(addr netip.Addr) bool {
	if len(l.Addresses) == 0 {
		return len(l.registered) < maxAddresses
	}
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })
}

func (l *link) setReady() { l.once.Do(func() { close(l.ready) }) }

func (l *link) complete() bool {
	for _, a := range l.Addresses {
		if !slices.Contains(l.registered, a.Addr()) {
			return false
		}
	}
	return true
}

// Addresses are the jail's registered addresses, native ones first.
func (j *Jail) Addresses() []netip.Addr {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []netip.Addr
	for _, l := range j.links {
		all = append(all, l.registered...)
	}
	return all
}

// Lost says whether a router ended the life line of one of the jail's devices,
// or a bridge found its device gone.
func (j *Jail) Lost() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.links, func(l *link) bool {
		if l.life == nil {
			return l.Network != "" || l.broken
		}
		select {
		case <-l.life.Lost():
			return true
		default:
			return false
		}
	})
}

// Do runs fn with a thread of the jail's network namespace.
func (j *Jail) Do(fn func() error) error {
	if !j.ns.IsOpen() {
		return fn()
	}
	return netns.Do(j.ns, fn)
}

// Leave says goodbye to the routers: the jail's addresses are free when it
// returns, and a new router does not get its devices.
func (j *Jail) Leave() error {
	j.joining.Lock()
	defer j.joining.Unlock()
	j.left = true
	var errs []error
	for _, l := range j.links {
		if life := j.setLife(l, nil); life != nil {
			errs = append(errs, life.Close())
		}
	}
	j.stopBridges()
	return errors.Join(errs...)
}

// Close leaves the routers and gives the namespace and its devices back to the
// kernel. Taking a device down costs tens of milliseconds (unregister_netdevice):
// many jails are closed side by side.
func (j *Jail) Close() error {
	errs := []error{j.Leave()}
	j.joining.Lock()
	defer j.joining.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.links {
		errs = append(errs, l.dev.Close())
	}
	j.links = nil
	if j.ns.IsOpen() {
		errs = append(errs, j.ns.Close())
	}
	return errors.Join(errs...)
}
