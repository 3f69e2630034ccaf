package vassal

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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

	Bridge    string // the kernel's bridge that it is in, instead of a router; empty: none
	BridgeMTU int    // bytes
	Alone     bool   // isolated from the bridge's other vassals
	Open      bool   // but for those that come by what it publishes
	HostEnd   string // the name of its other end, on the host
	Alias     string // of that
	MAC       string // of its own end
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
	Lone  bool   // it has its loopback device alone

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
	dev        *tuntap.Device // nil in a bridge
	life       *tuntap.Lifeline
	bridge     *Bridge               // of a foreign router's device
	broken     bool                  // the bridge found the device gone
	announced  []tuntap.Announcement // by the bridge
	restored   bool                  // it is another emperor's
	unsure     bool                  // the router has not said yet which rules it has
	registered []netip.Addr
	more       chan struct{} // closed when the router has registered one more, and then nil; made by who waits
	plugger    *Plugger      // of a bridge's device, once it was let in
}

// NewJail makes the namespace and everything in it that needs no router: the
// devices, the loopback, the native addresses and routes. Close undoes it.
// Without own the vassal lives in the emperor's namespace and has no links.
func NewJail(name string, own bool, links []Link) (*Jail, error) {
	if !own {
		return &Jail{Name: name, ns: nsh.None()}, nil
	}
	return openJail(&Jail{Name: name}, links)
}

// NewLoneJail makes a namespace with a loopback device that is up, and no other.
func NewLoneJail(name string) (*Jail, error) { return openJail(&Jail{Name: name, Lone: true}, nil) }

func openJail(j *Jail, links []Link) (*Jail, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	// gofail: var namespaceMade struct{}
	j.ns = ns
	if j.Inode, err = netns.Inode(ns); err == nil {
		err = j.makeEnds(links)
	}
	if err == nil {
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
	if native || j.Lone {
		if err := setSysctls(jailSettings); err != nil {
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
		l := &link{Link: spec}
		if err := l.open(); err != nil {
			return fmt.Errorf("device %s: %w", spec.Device, err)
		}
		// gofail: var deviceMade struct{}
		j.links = append(j.links, l)
		if len(spec.Addresses) == 0 {
			continue
		}
		if err := l.configure(handle, routed); err != nil {
			return fmt.Errorf("device %s: %w", spec.Device, err)
		}
	}
	return nil
}

// open makes the device, which one in a bridge has been already.
func (l *link) open() (err error) {
	switch {
	case l.Bridge != "":
	case l.Foreign:
		l.dev, err = tuntap.OpenPlainDevice(l.Device)
	default:
		l.dev, err = tuntap.OpenDevice(l.Device)
	}
	return err
}

// configure sets addresses and routes by netlink. Of several devices the first
// has the default route of its families.
func (l *link) configure(handle *netlink.Handle, routed map[bool]bool) error {
	six := slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if err := setSysctls(deviceSettings(l.Device, six)); err != nil {
		return err
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
	if err := l.answerBySource(handle, dev.Attrs().Index, routed); err != nil {
		return err
	}
	for _, r := range l.routes(dev.Attrs().Index, routed) {
		if err := handle.RouteAdd(&r); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
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
		if l.more != nil {
			close(l.more)
			l.more = nil
		}
	}
}

// told says whether the router has registered an address of a link. If not, more
// is closed when it has registered another one.
func (j *Jail) told(l *link, addr netip.Addr) (told bool, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.Contains(l.registered, addr) {
		return true, nil
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return false, l.more
}

func (l *link) mayHave(addr netip.Addr) bool {
	if len(l.Addresses) == 0 {
		return len(l.registered) < maxAddresses
	}
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })
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
		if l.Bridge != "" {
			return l.unplugged()
		}
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

// Leave says goodbye to the routers and bridges: the jail's addresses are free when it
// returns, and a new router does not get its devices. It happens once: afterwards its
// host ends' names are those of the vassal's next jail.
func (j *Jail) Leave() error {
	j.joining.Lock()
	defer j.joining.Unlock()
	if j.left {
		return nil
	}
	j.left = true
	var errs []error
	for _, l := range j.links {
		if life := j.setLife(l, nil); life != nil {
			errs = append(errs, life.Close())
		}
	}
	j.stopBridges()
	return errors.Join(append(errs, j.unplug())...)
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
		if l.dev != nil {
			errs = append(errs, l.dev.Close())
		}
	}
	j.links = nil
	if j.ns.IsOpen() {
		errs = append(errs, j.ns.Close())
	}
	return errors.Join(errs...)
}
