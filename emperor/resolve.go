package emperor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// resolved is a good ini joined with the networks and the leases: what a
// start needs.
type resolved struct {
	links      []vassal.Link
	net        bool    // a network namespace of its own
	namespaces uintptr // fresh for each generation, the network's aside
	plan       vassal.Plan
	document   []byte    // what the app takes by plan.Settings
	dir        string    // where the vassal begins
	door       *doorSpec // on demand; nil: it always runs
	keep       bool      // the jail outlives the generation: nothing in it was done by hooks
	key        string    // tells jails apart

	resources vassal.Resources // that the whole of it may use
}

const defaultMTU = 1500

// resolve works out what a vassal's ini means in this emperor. It leases what
// the vassal needs.
func (e *Emperor) resolve(c *vassal.Config) (*resolved, *ini.Error) {
	flags := e.Config.Namespaces | c.Isolation.Namespaces()
	joins := c.Isolation.Setns != "" // another's namespaces, its network too
	r := &resolved{net: flags&unix.CLONE_NEWNET != 0 && !joins, namespaces: flags &^ unix.CLONE_NEWNET}
	specs := e.devices(c)
	resolv := ""
	mounts := r.namespaces&unix.CLONE_NEWNS != 0 // of its own anyway; a native device brings them
	for _, d := range specs {
		d.Rules = e.rulesOf(ruleOwner{Vassal: c.Name, Device: d.Name}, d.Rules).InForce()
		l, n, err := e.link(c, d)
		if err != nil {
			return nil, &ini.Error{Pos: d.Pos, Message: err.Error()}
		}
		if bad := n.refuseRoutes(d); bad != nil && !l.Foreign {
			return nil, bad
		}
		r.links = append(r.links, l)
		if n != nil && resolv == "" && (mounts || d.Native()) {
			resolv = n.Resolv
		}
	}
	native := slices.ContainsFunc(specs, vassal.DeviceSpec.Native) || joins && e.attaching() != nil
	r.net = r.net || len(r.links) > 0
	r.keep = native && !slices.ContainsFunc(specs, func(d vassal.DeviceSpec) bool { return !d.Native() })
	// uWSGI's vassals begin in the folder of their inis. A command of ours
	// begins in the root: what it serves by mistake should not be other inis.
	r.dir = "/"
	if !native || len(c.App) > 0 {
		r.dir = filepath.Dir(c.File)
	}
	if resolv != "" {
		r.namespaces |= unix.CLONE_NEWNS
	}
	if err := e.plan(r, c, native, resolv); err != nil {
		return nil, &ini.Error{Pos: ini.Pos{File: c.File}, Message: err.Error()}
	}
	if err := e.heed(r, c); err != nil {
		return nil, err
	}
	if err := e.doorOf(r, c); err != nil {
		return nil, &ini.Error{Pos: ini.Pos{File: c.File}, Message: err.Error()}
	}
	if err := e.isolate(r, c); err != nil {
		return nil, err
	}
	if err := e.limit(r, c); err != nil {
		return nil, err
	}
	if err := e.checkAttached(r, c); err != nil {
		return nil, err
	}
	r.introduce(c)
	return r, nil
}

// devices are those that a vassal is to have: its ini's, or the one of the network
// that attaches all. That is also what an ini means that has rules for a device,
// or its MTU, and names none.
func (e *Emperor) devices(c *vassal.Config) []vassal.DeviceSpec {
	n := e.attaching()
	switch {
	case n == nil || c.Isolation.Setns != "":
	case len(c.Devices) == 0:
		return []vassal.DeviceSpec{{Name: vassal.DefaultDevice, Auto: true, Socket: n.Socket, Pos: ini.Pos{File: c.File}}}
	case len(c.Devices) == 1 && c.Devices[0].Implicit && !c.Devices[0].Native():
		d := c.Devices[0]
		d.Auto, d.Socket = true, n.Socket
		return []vassal.DeviceSpec{d}
	}
	return c.Devices
}

// attaching is the network that gives every vassal a device, if one does.
func (e *Emperor) attaching() *Network {
	for i := range e.Networks {
		if e.Networks[i].AttachAll {
			return &e.Networks[i]
		}
	}
	return nil
}

// networkOf finds the network of a device: by its socket, or for a native one
// without a socket the one that has its address, else the only native one.
func (e *Emperor) networkOf(d vassal.DeviceSpec) (*Network, error) {
	var fits []*Network
	for i := range e.Networks {
		n := &e.Networks[i]
		switch {
		case d.Socket != "" && d.Socket == n.Socket:
			return n, nil
		case d.Socket == "" && d.Auto && len(n.Addresses) > 0:
			fits = append(fits, n)
		case d.Socket == "" && slices.ContainsFunc(d.Addresses, func(a netip.Addr) bool { return n.prefix(a).IsValid() }):
			fits = append(fits, n)
		}
	}
	switch {
	case d.Socket != "" || !d.Native():
		return nil, nil // a foreign router's network, or only a device
	case len(fits) == 0:
		return nil, fmt.Errorf("no network of this emperor has the address of device %s; networks are: %s", d.Name, e.pools())
	case len(fits) > 1 && e.attaching() != nil:
		return e.attaching(), nil
	case len(fits) > 1:
		return nil, fmt.Errorf("several networks fit device %s; name one by its socket: tuntap-device = %s SOCKET", d.Name, d.Name)
	}
	return fits[0], nil
}

func (e *Emperor) sockets() string {
	var all []string
	for _, n := range e.Networks {
		all = append(all, n.Socket)
	}
	if len(all) == 0 {
		return "none (write tuntap-router = DEVICE SOCKET)"
	}
	return strings.Join(all, " ")
}

func (e *Emperor) pools() string {
	var all []string
	for _, n := range e.Networks {
		for _, a := range n.Addresses {
			all = append(all, a.Masked().String())
		}
	}
	if len(all) == 0 {
		return "none native (write tuntap-router-address = ADDRESS/BITS)"
	}
	return strings.Join(all, " ")
}

// prefix is the router's own prefix that a is in; invalid when none is.
func (n *Network) prefix(a netip.Addr) netip.Prefix {
	for _, p := range n.Addresses {
		if p.Masked().Contains(a) {
			return p
		}
	}
	return netip.Prefix{}
}

// link resolves one device.
func (e *Emperor) link(c *vassal.Config, d vassal.DeviceSpec) (vassal.Link, *Network, error) {
	l := vassal.Link{Device: d.Name, Rules: d.Rules, MTU: d.MTU}
	if l.MTU == 0 {
		l.MTU = defaultMTU
	}
	n, err := e.networkOf(d)
	switch {
	case err != nil:
		return l, nil, err
	case n == nil && d.Socket != "":
		return l, nil, e.foreign(&l, c, d)
	case n == nil:
		return l, nil, nil
	}
	l.Network, l.Socket = n.Device, n.Socket
	addresses := d.Addresses
	if d.Auto && len(n.Addresses) == 0 {
		return l, n, fmt.Errorf("device %s: network %s has no pool to lease an address from; write tuntap-router-address = ADDRESS/BITS", d.Name, n.Device)
	}
	if d.Auto {
		leased, err := e.lease(n, c.Name)
		if err != nil {
			return l, n, err
		}
		addresses = append(slices.Clone(addresses), leased...)
	}
	for _, a := range addresses {
		p := n.prefix(a)
		switch {
		case !p.IsValid():
			return l, n, fmt.Errorf("address %s is outside the network of %s (%s)", a, n.Device, e.pools())
		case a == p.Addr():
			return l, n, fmt.Errorf("address %s is the router's own", a)
		case a == p.Masked().Addr() || a.Is4() && a == nth(p, 1<<(32-p.Bits())-1):
			return l, n, fmt.Errorf("address %s is the network's own or its broadcast address", a)
		}
		l.Addresses = append(l.Addresses, netip.PrefixFrom(a, p.Bits()))
		if len(d.Gateways) == 0 && !slices.Contains(l.Gateways, p.Addr()) {
			l.Gateways = append(l.Gateways, p.Addr())
		}
	}
	for _, gw := range d.Gateways {
		if !slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Masked().Contains(gw) }) {
			return l, n, fmt.Errorf("gateway %s is in no network of device %s", gw, d.Name)
		}
	}
	l.Gateways = append(l.Gateways, d.Gateways...)
	return l, n, nil
}

// present says whether an ini of this name is there now.
func (e *Emperor) present(name string) bool { return e.vassals[name] != nil }

// leaseUID leases a uid; when all are leased, names that are gone give theirs.
func (e *Emperor) leaseUID(name string) (int, error) {
	uid, err := e.Leases.UID(name)
	if err != nil && e.Leases.release(e.present) {
		uid, err = e.Leases.UID(name)
	}
	return uid, err
}

// leaseAddress leases an address; when all are leased, names that are gone
// give theirs.
func (e *Emperor) leaseAddress(pool netip.Prefix, name string, taken func(netip.Addr) bool) (netip.Addr, error) {
	a, err := e.Leases.Address(pool, name, taken)
	if err != nil && e.Leases.release(e.present) {
		a, err = e.Leases.Address(pool, name, taken)
	}
	return a, err
}

// lease gives the vassal an address in every prefix of the network.
func (e *Emperor) lease(n *Network, name string) ([]netip.Addr, error) {
	var leased []netip.Addr
	for _, p := range n.Addresses {
		a, err := e.leaseAddress(p.Masked(), name, func(a netip.Addr) bool {
			holder, declared := e.claims.Holder(a)
			return a == p.Addr() || declared && holder != name
		})
		if err != nil {
			return nil, err
		}
		leased = append(leased, a)
	}
	return leased, nil
}

// settleLeases saves new leases and tells the router about them.
func (e *Emperor) settleLeases() {
	if !e.Leases.dirty {
		return
	}
	e.saveLeases()
	e.reserve()
}

// saveLeases writes the leases. When it cannot be done vassals run all the
// same, and it is tried again with each scan.
func (e *Emperor) saveLeases() {
	before := e.Leases.unsaved
	err := e.Leases.save()
	switch {
	case err != nil && !before:
		e.Log.Error("leases are not saved; addresses and uids may change with the next emperor until they are", "err", err)
	case err == nil && before:
		e.Log.Info("leases are saved again")
	}
}

// plan fills in what the init stage does.
func (e *Emperor) plan(r *resolved, c *vassal.Config, native bool, resolv string) error {
	p := &r.plan
	*p = vassal.Plan{
		Name: c.Name, UID: -1, GID: -1, Umask: -1, LogUID: -1,
		Chdir: c.Chdir, Chroot: c.Chroot, LogTo: c.LogTo, Logging: c.Log, Hooks: c.Hooks, Env: slices.Clone(c.Env),
		Mounts: r.namespaces&unix.CLONE_NEWNS != 0, Resolv: resolv,
		Proc:     r.namespaces&unix.CLONE_NEWNS != 0 && r.namespaces&unix.CLONE_NEWPID != 0,
		Reaper:   r.namespaces&unix.CLONE_NEWPID != 0,
		Protocol: c.Speaks(),
		Caps:     c.Cap, KeepCaps: c.CapSet, Bounded: native || e.Config.Tyrant, CleanEnv: native || e.Config.Tyrant,
	}
	r.employ(c)
	if hook := e.Config.StartHook; hook != "" {
		dir, file := filepath.Split(c.File)
		p.StartHook = &vassal.StartHook{Args: []string{hook, file}, Dir: dir, AsUser: e.Config.Tyrant}
	}
	if len(c.App) > 0 {
		p.Programs = e.Config.Wrappers.of(c).programs(p.Args[0])
	}
	if c.Umask != nil {
		p.Umask = *c.Umask
	}
	home := "/"
	switch {
	case c.UID != nil && e.RouterUID != 0 && c.UID.ID == e.RouterUID:
		return fmt.Errorf("uid %s is the router's own; choose another", c.UID.Name)
	case c.UID != nil && e.BridgeUID != 0 && c.UID.ID == e.BridgeUID:
		return fmt.Errorf("uid %s is that of the bridges to other routers; choose another", c.UID.Name)
	case c.UID != nil:
		p.UID, p.GID, p.Groups, p.SetGroups = c.UID.ID, c.UID.Main, c.UID.Groups, true
		if c.UID.Home != "" {
			home = c.UID.Home
		}
	case native:
		uid, err := e.leaseUID(c.Name)
		if err != nil {
			return err
		}
		p.UID, p.GID, p.SetGroups = uid, uid, true
	}
	if c.GID != nil {
		p.GID, p.SetGroups = c.GID.ID, true
	}
	if p.GID < 0 && p.UID > 0 {
		p.GID = p.UID
	}
	for _, g := range c.AddGID {
		p.Groups, p.SetGroups = append(slices.Clone(p.Groups), g.ID), true
	}
	if e.Config.Tyrant || c.Log.Late {
		p.LogUID = p.UID
	}
	if p.CleanEnv {
		p.Env, p.HostEnv = append(ownEnv(home), c.Env...), hostEnv()
	}
	return nil
}

// employ adds to the plan what the init stage becomes, and its options. With
// attached processes it becomes nobody: the command joins as they do.
func (r *resolved) employ(c *vassal.Config) {
	if len(c.Attached) == 0 {
		r.plan.Args = c.Args()
	}
	r.plan.Settings, r.document = c.Settings()
}

// CleanEnv is what an app finds of the host's environment in a native network.
func CleanEnv(home string) []string { return append(ownEnv(home), hostEnv()...) }

func ownEnv(home string) []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home}
}

func hostEnv() (env []string) {
	for _, name := range []string{"LANG", "LC_ALL", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
