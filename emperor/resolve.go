package emperor

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// resolved is a good ini joined with the networks and the leases: what a
// start needs.
type resolved struct {
	links      []vassal.Link
	bridges    []KernelBridge // that links are in
	net        bool           // a network namespace of its own
	namespaces uintptr        // fresh for each generation, the network's aside
	plan       vassal.Plan
	document   []byte    // what the app takes by plan.Settings
	dir        string    // where the vassal begins
	door       *doorSpec // on demand; nil: it always runs
	keep       bool      // the jail outlives the generation: nothing in it was done by hooks
	lone       bool      // the jail has its loopback device alone
	level      vassal.Level
	key        string // tells jails apart

	hosts     []byte // what the vassal's own /etc/hosts says; nil: it has none
	published []Published
	ports     []hostPort // of the host's, that this takes

	resources vassal.Resources // that the whole of it may use
}

const defaultMTU = 1500

// resolve works out what a vassal's ini means in this emperor. It leases what
// the vassal needs.
func (e *Emperor) resolve(c *vassal.Config) (*resolved, *ini.Error) {
	if errs := e.policed(c); errs.Failed() { // before each start: the policy may have changed
		return nil, &errs[0]
	}
	flags := e.Config.Namespaces | c.Isolation.Namespaces()
	joins := c.Isolation.Setns != "" // another's namespaces, its network too
	r := &resolved{
		net:        flags&unix.CLONE_NEWNET != 0 && !joins && c.Network != vassal.HostNetwork || c.Network == vassal.NoNetwork,
		lone:       c.Network == vassal.NoNetwork,
		namespaces: flags &^ unix.CLONE_NEWNET,
	}
	specs := e.devices(c)
	resolv, named, bad := e.join(r, c, specs)
	if bad != nil {
		return nil, bad
	}
	unseen := func(l vassal.Link) bool { return l.Bridge != "" && len(l.Addresses) == 0 } // to who only checks
	if !slices.ContainsFunc(r.links, unseen) {
		if r.published, r.ports, bad = publishedBy(c, r.links); bad != nil {
			return nil, bad
		}
	}
	native := c.Network != "" || slices.ContainsFunc(specs, vassal.DeviceSpec.Native) || joins && e.attaching() != nil
	r.net = r.net || len(r.links) > 0
	byHooks := slices.ContainsFunc(specs, func(d vassal.DeviceSpec) bool { return !d.Native() })
	r.keep = native && c.Network != vassal.HostNetwork && !byHooks
	// uWSGI's vassals begin in the folder of their inis. A command of ours
	// begins in the root: what it serves by mistake should not be other inis.
	r.dir = "/"
	if !native || len(c.App) > 0 {
		r.dir = filepath.Dir(c.File)
	}
	if resolv != "" {
		r.namespaces |= unix.CLONE_NEWNS
	}
	if r.level, bad = e.level(c, native && !byHooks); bad != nil {
		return nil, bad
	}
	if r.level.Full() {
		r.namespaces |= unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if err := e.plan(r, c, native, resolv); err != nil {
		return nil, &ini.Error{Pos: ini.Pos{File: c.File}, Message: err.Error()}
	}
	if bad := e.users(r, c); bad != nil {
		return nil, bad
	}
	if named {
		r.nameHosts(e.Instance, c.Name)
	}
	if err := e.heed(r, c); err != nil {
		return nil, err
	}
	if k := r.plan.Confined; k != nil {
		k.Reads = e.reads(r, c) // an attribute may say where the app begins
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

// join gives a vassal its links, by its devices, and tells of whom it asks for names:
// its resolv.conf, and whether that is of a network that has names of its own.
func (e *Emperor) join(r *resolved, c *vassal.Config, specs []vassal.DeviceSpec) (resolv string, named bool, bad *ini.Error) {
	mounts := r.namespaces&unix.CLONE_NEWNS != 0 // of its own anyway; a native device brings them
	for _, d := range specs {
		d.Rules = e.rulesOf(ruleOwner{Vassal: c.Name, Device: d.Name}, d.Rules).InForce()
		l, n, err := e.link(r, c, d)
		if err != nil {
			return "", false, &ini.Error{Pos: d.Pos, Message: err.Error()}
		}
		if bad := n.refuseRoutes(d); bad != nil && !l.Foreign {
			return "", false, bad
		}
		r.links = append(r.links, l)
		if n != nil && resolv == "" && (mounts || d.Native()) {
			resolv, named = n.Resolv, n.Names && n.Resolv != ""
		}
	}
	return resolv, named, nil
}

// link resolves one device.
func (e *Emperor) link(r *resolved, c *vassal.Config, d vassal.DeviceSpec) (vassal.Link, *Network, error) {
	l := vassal.Link{Device: d.Name, Rules: d.Rules, MTU: d.MTU}
	if d.Bridge != "" {
		return e.bridgeLink(r, c, d, l)
	}
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
	if d.Auto && len(n.Addresses) == 0 {
		return l, n, fmt.Errorf("device %s: network %s has no pool to lease an address from; write tuntap-router-address = ADDRESS/BITS", d.Name, n.Device)
	}
	err = e.address(&l, n, c, d)
	return l, n, err
}

// address gives a link the addresses and the default routes that its ini asks for.
func (e *Emperor) address(l *vassal.Link, n *Network, c *vassal.Config, d vassal.DeviceSpec) error {
	addresses := d.Addresses
	if d.Auto {
		leased, err := e.lease(n, c.Name)
		if err != nil {
			return err
		}
		addresses = append(slices.Clone(addresses), leased...)
	}
	for _, a := range addresses {
		p := n.prefix(a)
		switch {
		case !p.IsValid():
			return fmt.Errorf("address %s is outside the network of %s (%s)", a, n.Device, n.pool())
		case a == p.Addr():
			return fmt.Errorf("address %s is the %s's own", a, n.kind())
		case slices.Contains(n.Gateways, a):
			return fmt.Errorf("address %s is the gateway of %s", a, n.Device)
		case a == p.Masked().Addr() || a.Is4() && a == nth(p, 1<<(32-p.Bits())-1):
			return fmt.Errorf("address %s is the network's own or its broadcast address", a)
		}
		l.Addresses = append(l.Addresses, netip.PrefixFrom(a, p.Bits()))
		if gw := n.gateway(p); len(d.Gateways) == 0 && !slices.Contains(l.Gateways, gw) {
			l.Gateways = append(l.Gateways, gw)
		}
	}
	for _, gw := range d.Gateways {
		if !slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Masked().Contains(gw) }) {
			return fmt.Errorf("gateway %s is in no network of device %s", gw, d.Name)
		}
	}
	l.Gateways = append(l.Gateways, d.Gateways...)
	return nil
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
	case c.UID != nil && e.ResponderUID != 0 && c.UID.ID == e.ResponderUID:
		return fmt.Errorf("uid %s is that of the responder, which answers for names; choose another", c.UID.Name)
	case c.UID != nil:
		p.UID, p.GID, p.Groups, p.SetGroups = c.UID.ID, c.UID.Main, c.UID.Groups, true
		if c.UID.Home != "" {
			home = c.UID.Home
		}
	case native || r.level.Full():
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
	e.confine(r, c)
	if p.CleanEnv {
		p.Env, p.HostEnv = append(ownEnv(home), c.Env...), hostEnv()
		if p.Confined != nil {
			p.Env = append(ownEnv(home), append(withUser(c), c.Env...)...)
		}
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
