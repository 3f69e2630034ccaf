package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/internal/responder"
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
	if slices.ContainsFunc(r.networks, func(o tuntap.NetworkOptions) bool { return o.Native() }) {
		if err := vassal.SettingsRefused(); err != nil {
			return nil, fmt.Errorf("%w; %s", err, mountSettings)
		}
	}
	if err := r.lookAtBridges(); err != nil {
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

// mountSettings is what helps where sysctls cannot be written.
const mountSettings = "remount it for writing (mount -o remount,bind,rw /proc/sys), or run the container with --privileged or on the host"

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
	if err := furnish(o.Device, o.Addresses); err != nil {
		return nil, err
	}
	// gofail: var hostDeviceConfigured struct{}
	in, out := chains(r.emperor.RulesOf(o.Device))
	n.Config = tuntap.NetworkConfig{
		Name: o.Device, Pool: o.Pool(), Isolate: o.Isolated(), Direct: o.Switched(), In: in, Out: out,
		Strangers: r.strangers(o), Published: routerPorts(r.emperor.Publications()),
		Routes: o.Routes, FarEnds: o.FarEnds, Credentials: o.Credentials, File: o.Pos.File, Line: o.Pos.Line,
	}
	n.Config.Resolvers = hostResolvers()
	err = r.resolve(o, seen, n.Config.Resolvers)
	n.Config.NamesAt = r.names.at[o.Device]
	return n, err
}

// resolve gives a network's vassals their resolvers: the responder at the router's
// addresses, or else those of the host that they can reach.
func (r *runner) resolve(o *tuntap.NetworkOptions, seen *emperor.Network, direct []netip.Addr) (err error) {
	if o.Named() {
		n := &asked{device: o.Device, pool: o.Pool()}
		for _, a := range o.Addresses {
			n.at = append(n.at, a.Addr())
		}
		port, err := r.openNames(n)
		if err == nil {
			seen.Names, r.names.at[o.Device] = true, port
			seen.Resolv, err = r.writeResolv(o.Device, ownResolv(n.at))
			return err
		}
		r.log.Error("no names in this network; its vassals ask the host's resolvers", "network", o.Device, "err", err)
	}
	if len(direct) == 0 && o.Native() {
		r.log.Warn("the host has no resolver that vassals could reach", "network", o.Device)
	}
	if len(direct) == 0 && !o.Native() {
		return nil
	}
	seen.Resolv, err = r.writeResolv(o.Device, hostsResolv(direct))
	return err
}

// openNetwork opens a network's device and sockets, or takes those that the
// adopted router has.
func (r *runner) openNetwork(o *tuntap.NetworkOptions) (*control.Network, error) {
	if n, err := r.findNetwork(o); n != nil || err != nil {
		return n, err
	}
	dev, err := tuntap.OpenDevice(o.Device)
	if err != nil {
		if _, lerr := netlink.LinkByName(o.Device); lerr == nil { // the host has one of the name
			err = fmt.Errorf("%w, such as %s", err, freeName("fief"))
		}
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

// furnish gives a router's device its addresses and the queue that vassals' have:
// what waits there survives a router that is being started again. One with addresses
// is taken up; the others are the hooks'.
func furnish(device string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetTxQLen(link, vassal.QueueLength); err != nil || len(addresses) == 0 {
		return err
	}
	for _, a := range addresses {
		if err := giveAddress(link, a); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

// setUpHost makes the host's side of the networks: of those that masquerade,
// and of those whose vassals publish. Without any it touches nothing.
func (r *runner) setUpHost() (*nat.Host, error) {
	for _, o := range r.networks {
		if !o.Native() {
			continue
		}
		n := nat.Network{Device: o.Device, Pool: o.Pool(), Judged: true, Masquerade: o.NAT, Flows: o.FlowLimit(), NamesAt: r.names.at[o.Device]}
		if n.Masquerade == "off" {
			n.Masquerade = ""
		}
		for _, a := range o.Addresses {
			n.Gateways = append(n.Gateways, a.Addr())
		}
		r.masquerading = append(r.masquerading, n)
	}
	host, err := nat.New(r.instance.Name, r.instance.State, r.log)
	if err != nil && len(r.masquerading) == 0 {
		r.hostErr = err
		return nil, r.setUpBridges() // no network has addresses: nothing is needed, and nothing of ours can be there
	}
	if err != nil {
		return nil, err
	}
	r.host = host
	r.later(func() error {
		if r.leaves {
			return nil // the orphans' packets leave by these chains
		}
		return host.Remove()
	})
	if err := r.setUpBridges(); err != nil {
		return nil, err
	}
	if err := r.applyHost(r.bridges.masqs); err != nil {
		return nil, err
	}
	// What adopted vassals publish goes on; what others did ends.
	r.endLost()
	ports := hostPorts(r.emperor.Publications())
	if err := r.bridges.rules.Publish(ports); err != nil {
		return nil, err
	}
	return host, host.Publish(ports)
}

// applyHost puts the host's rules for the routers' networks and some bridges in force.
func (r *runner) applyHost(bridges []nat.Network) error {
	switch {
	case r.host == nil && len(bridges) == 0:
		return nil
	case r.host == nil:
		return r.hostErr
	}
	return r.host.Apply(slices.Concat(r.masquerading, bridges))
}

// hostResolvers are the host's resolvers that a vassal can reach: those not
// on the host's loopback.
func hostResolvers() (found []netip.Addr) {
	for _, at := range responder.HostConf().Resolvers {
		if a := at.Addr(); !a.IsLoopback() && a.Zone() == "" {
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
