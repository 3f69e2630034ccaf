package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/tuntap"
	"fiefdom/tuntap/control"
	"fiefdom/vassal"
)

// makeNetworks makes every router's device, with its address if it is native,
// and the listening sockets.
func (r *runner) makeNetworks() ([]*control.Network, error) {
	if err := clashes(r.networks); err != nil { // before anything of a former emperor's goes
		return nil, err
	}
	if err := r.removeNetworks(); err != nil {
		return nil, err
	}
	var all []*control.Network
	for i := range r.networks {
		n, err := r.makeNetwork(&r.networks[i], &r.emperor.Networks[i])
		if err != nil {
			return nil, fmt.Errorf("%s: network %s: %w", r.networks[i].Pos, r.networks[i].Device, err)
		}
		all = append(all, n)
	}
	return all, nil
}

// clashes says which network's pool is a network of the host.
func clashes(networks []tuntap.NetworkOptions) error {
	for i := range networks {
		o := &networks[i]
		if !o.Native() {
			continue
		}
		if err := nat.Clash(o.Pool(), o.Device); err != nil {
			return fmt.Errorf("%s: network %s: %w", o.Pos, o.Device, err)
		}
	}
	return nil
}

func (r *runner) makeNetwork(o *tuntap.NetworkOptions, seen *emperor.Network) (*control.Network, error) {
	n, err := r.openNetwork(o)
	if err != nil {
		return nil, err
	}
	// gofail: var socketsMade struct{}
	if err := setQueue(o.Device); err != nil {
		return nil, err
	}
	for _, a := range o.Addresses {
		if err := setAddress(o.Device, a); err != nil {
			return nil, err
		}
	}
	// gofail: var hostDeviceConfigured struct{}
	in, out := chains(r.emperor.RulesOf(o.Device))
	n.Config = tuntap.NetworkConfig{
		Name: o.Device, Pool: o.Pool(), Isolate: o.Isolated(), Direct: o.Switched(), In: in, Out: out,
		Routes: o.Routes, FarEnds: o.FarEnds, Credentials: o.Credentials, File: o.Pos.File, Line: o.Pos.Line,
	}
	if n.Config.Resolvers, err = hostResolvers(); err != nil {
		return nil, err
	}
	if len(n.Config.Resolvers) == 0 && o.Native() {
		r.log.Warn("the host has no resolver that vassals could reach", "network", o.Device)
	}
	if len(n.Config.Resolvers) > 0 || o.Native() {
		if seen.Resolv, err = r.writeResolv(o.Device, n.Config.Resolvers); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// openNetwork opens a network's device and sockets, or takes those that the
// adopted router has.
func (r *runner) openNetwork(o *tuntap.NetworkOptions) (*control.Network, error) {
	if n, err := r.findNetwork(o); n != nil || err != nil {
		return n, err
	}
	dev, err := tuntap.OpenDevice(o.Device)
	if err != nil {
		return nil, err
	}
	r.later(dev.Close)
	n := &control.Network{Device: dev}
	// gofail: var hostDeviceMade struct{}
	if n.Listener, err = r.listen("unix", o.Socket, vassal.SocketRights{Mode: &r.config.SocketMode}); err != nil {
		return nil, err
	}
	if o.Stats != "" {
		if n.Stats, err = r.listen(statsNetwork(o.Stats), o.Stats, rootOnly(vassal.SocketRights{})); err != nil {
			return nil, err
		}
	}
	if o.Gateway.IsValid() {
		n.Gateway, err = r.bind(o.Gateway)
	}
	return n, err
}

// bind makes the UDP socket of a network's gateway. Its address may be one that
// a hook is still to give to the host.
func (r *runner) bind(address netip.AddrPort) (*os.File, error) {
	var early net.ListenConfig
	c, err := early.ListenPacket(context.Background(), "udp4", address.String())
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		r.log.Warn("the host does not have the gateway's address yet; a hook has to set it", "addr", address)
		early.Control = freeBind
		c, err = early.ListenPacket(context.Background(), "udp4", address.String())
	}
	if err != nil {
		return nil, fmt.Errorf("gateway %s: %w; want a free port of an address that the host has", address, err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("gateway %s cannot be handed to the router", address), c.Close())
	}
	defer u.Close()
	f, err := u.File()
	if err != nil {
		return nil, err
	}
	r.later(f.Close)
	return f, nil
}

// freeBind lets a socket have an address before the host does (ip(7), IP_FREEBIND).
func freeBind(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(err, set)
}

// setQueue gives a device the queue that vassals' have: what waits there
// survives a router that is being started again.
func setQueue(device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return netlink.LinkSetTxQLen(link, vassal.QueueLength)
}

// setAddress gives a device its address and takes it up. IPv6 skips duplicate
// detection: nobody else is on the device.
func setAddress(device string, a netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
	if a.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

// setUpHost makes the host's side of the networks that masquerade. Without
// any it touches nothing.
func (r *runner) setUpHost() (*nat.Host, error) {
	var nets []nat.Network
	for _, o := range r.networks {
		if o.NAT == "" || o.NAT == "off" {
			continue
		}
		n := nat.Network{Device: o.Device, Pool: o.Pool(), Masquerade: o.NAT}
		for _, a := range o.Addresses {
			n.Gateways = append(n.Gateways, a.Addr())
		}
		nets = append(nets, n)
	}
	host, err := nat.New(r.instance.Name, r.instance.State, r.log)
	if len(nets) == 0 {
		if err != nil {
			return nil, nil //nolint:nilerr // no network masquerades: nothing is needed, and nothing of ours can be there
		}
		return nil, host.Remove()
	}
	if err != nil {
		return nil, err
	}
	r.later(func() error {
		if r.leaves {
			return nil // the orphans' packets leave by these chains
		}
		return host.Remove()
	})
	return host, host.Apply(nets)
}

// writeResolv writes the resolv.conf of a network's vassals.
func (r *runner) writeResolv(device string, resolvers []netip.Addr) (string, error) {
	var b strings.Builder
	for _, a := range resolvers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	path := r.instance.Path("resolv-" + device)
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return "", err
	}
	// Every vassal's uid reads it, whatever umask the emperor was started with.
	return path, os.Chmod(path, 0o644)
}

// resolvConfs is where the host's resolvers are: its own file, and behind a
// local stub the one that lists the real ones (systemd-resolved.service(8)).
var resolvConfs = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// hostResolvers are the host's resolvers that a vassal can reach: those not
// on the host's loopback.
func hostResolvers() ([]netip.Addr, error) {
	for _, path := range resolvConfs {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found := nameservers(f)
		_ = f.Close()
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

func nameservers(f *os.File) []netip.Addr {
	var found []netip.Addr
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(words[1])
		if err == nil && !a.IsLoopback() && a.Zone() == "" {
			found = append(found, a)
		}
	}
	return found
}

// newKeeper makes the keeper, which is joined with the emperor: there must be one
// when the keeper runs, and need not when it adopts.
func (r *runner) newKeeper() *control.Keeper {
	uid, gid := routerUID()
	return &control.Keeper{
		Log: r.log, Threads: r.config.Threads, BusyPoll: r.config.BusyPoll, UID: uid, GID: gid,
		Door: r.instance.Path(emperor.RouterSocket), Recorded: r.instance.RecordedRouter,
		Identify:   func(pidfd *os.File) string { return r.emperor.Identify(pidfd) },
		Registered: func(g control.Registration) { r.emperor.Registered(g.Network, g.Vassal, g.Addr) },
		Closed:     func(c control.Closing) { r.emperor.Lost(c.Vassal, c.Why) },
		Rejoin:     func() error { return r.emperor.Rejoin() },
		Started:    r.instance.RecordRouter,
	}
}

// makeKeeper gives the keeper its networks.
func (r *runner) makeKeeper(networks []*control.Network, cgroup vassal.Cgroup) error {
	r.keeper.Networks = networks
	if cgroup == "" {
		return nil
	}
	child, err := cgroup.Make(emperor.RouterGroup)
	if err != nil {
		return err
	}
	r.keeper.Cgroup, err = child.Open()
	if err == nil {
		r.later(r.keeper.Cgroup.Close)
	}
	return err
}

func (r *runner) reserve(network string, reserved map[netip.Addr]string) error {
	return r.keeper.Change(network, func(c *tuntap.NetworkConfig) { c.Reserved = reserved })
}

// traffic adds up the router's counters by vassal.
func (r *runner) traffic(ctx context.Context) (map[string]emperor.Traffic, error) {
	networks, err := r.keeper.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]emperor.Traffic{}
	for _, n := range networks {
		for _, p := range n.Peers {
			t := all[p.Vassal]
			if t.Drops == nil {
				t.Drops = map[string]uint64{}
			}
			t.RxBytes += p.RxBytes
			t.TxBytes += p.TxBytes
			for reason, count := range p.Drops {
				t.Drops[reason.String()] += count
			}
			all[p.Vassal] = t
		}
	}
	return all, nil
}
