package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
)

// NetworkOptions is one tuntap-router line with the options that belong to
// it: a router device with its pool, chains and policies.
type NetworkOptions struct {
	Device    string
	Socket    string
	Stats     string         // address of uWSGI's stats server; empty: none
	Gateway   netip.AddrPort // of the UDP gateway; invalid: none
	Addresses []netip.Prefix // the router's own, with the network's prefix; any makes the network native
	NAT       string         // off, auto or an interface
	AttachAll bool           // vassals without a device get one
	Isolate   *bool
	Direct    *bool
	Names     *bool
	Flows     *uint32 // that a vassal may have at once through the host's kernel; 0: any number
	In, Out   []firewall.Rule
	Routes    []Route
	FarEnds   []netip.AddrPort // gateways of others that may be heard, besides the routes' targets
	Pos       ini.Pos

	Credentials bool // devices must begin with their user's ids
}

// Native says that addresses are ours to set, not a hook's.
func (n *NetworkOptions) Native() bool { return len(n.Addresses) > 0 }

// Isolated is the policy at the end of the out chain: on for native networks
// unless the ini says otherwise.
func (n *NetworkOptions) Isolated() bool { return orNative(n.Isolate, n) }

// Switched says that packets between vassals stay in the router: on for
// native networks unless the ini says otherwise.
func (n *NetworkOptions) Switched() bool { return orNative(n.Direct, n) }

// Named says that the vassals' names are answered at the router's address: on for
// native networks, the only ones that can, unless the ini says otherwise.
func (n *NetworkOptions) Named() bool { return n.Native() && orNative(n.Names, n) }

// DefaultFlows is how many connections one vassal may have: it leaves the others of
// a kernel that tracks 262,144 connections, as most do, their share.
const DefaultFlows = 4096

// FlowLimit is how many connections and UDP flows one address of a vassal may
// have at once through the host's kernel; 0: any number.
func (n *NetworkOptions) FlowLimit() uint32 {
	if n.Flows != nil {
		return *n.Flows
	}
	return DefaultFlows
}

func orNative(said *bool, n *NetworkOptions) bool {
	if said != nil {
		return *said
	}
	return n.Native()
}

// Pool is the network's prefixes, the router's addresses masked.
func (n *NetworkOptions) Pool() []netip.Prefix {
	var pool []netip.Prefix
	for _, a := range n.Addresses {
		pool = append(pool, a.Masked())
	}
	return pool
}

// RouterOptions holds the networks of an emperor's ini. Options written before
// any tuntap-router line apply to all networks.
type RouterOptions struct {
	Networks []NetworkOptions
	common   []func(*NetworkOptions)
	stats    string
}

// ParseNetworks reads the tuntap-router options of an emperor's ini.
func ParseNetworks(pairs []ini.Pair) ([]NetworkOptions, ini.Errors) {
	var o RouterOptions
	errs := ini.Decode(&o, Options, pairs)
	for i := range o.Networks {
		n := &o.Networks[i]
		if n.Stats == "" {
			n.Stats = o.stats
		}
		err := n.check()
		for j := range i {
			err = errors.Join(err, n.apart(&o.Networks[j]))
		}
		if err != nil {
			errs = append(errs, ini.Error{Pos: n.Pos, Message: err.Error()})
		}
	}
	if len(o.Networks) == 0 && len(o.common) > 0 {
		errs = append(errs, ini.Error{Message: "tuntap-router-… options without a network; write tuntap-router = DEVICE SOCKET"})
	}
	return o.Networks, errs
}

func (n *NetworkOptions) check() error {
	switch {
	case n.AttachAll && !n.Native():
		return errors.New("tuntap-router-attach = all needs a native network: write tuntap-router-address = ADDRESS/BITS")
	case n.NAT != "" && n.NAT != "off" && !n.Native():
		return errors.New("tuntap-router-nat needs to know the pool: write tuntap-router-address = ADDRESS/BITS")
	}
	if err := n.checkGateway(); err != nil {
		return err
	}
	for i, a := range n.Addresses {
		for _, b := range n.Addresses[:i] {
			if a.Overlaps(b) {
				return fmt.Errorf("addresses %s and %s are of one prefix; a network has one address a prefix", b, a)
			}
		}
	}
	return nil
}

// apart checks that two networks share no address and no socket.
func (n *NetworkOptions) apart(other *NetworkOptions) error {
	if n.Stats != "" && (n.Stats == other.Stats || n.Stats == other.Socket) || other.Stats != "" && other.Stats == n.Socket {
		return fmt.Errorf("the stats socket is one of %s's; networks need sockets of their own", other.Pos)
	}
	for _, a := range n.Addresses {
		for _, b := range other.Addresses {
			if a.Overlaps(b) {
				return fmt.Errorf("pool %s overlaps %s of %s; networks need pools of their own", a.Masked(), b.Masked(), other.Pos)
			}
		}
	}
	return nil
}

// Options are the emperor's options about networks.
var Options = []ini.Option[RouterOptions]{
	{
		Name: "tuntap-router", Kind: ini.Text, Since: "0.1", Repeats: true, Set: addNetwork,
		Meaning: "DEVICE SOCKET [STATS [GATEWAY]]: a network: make DEVICE, listen on SOCKET for the devices of vassals; GATEWAY is the IP:PORT of a UDP socket towards other routers",
	},
	{
		Name: "tuntap-router-address", Kind: ini.Address, Since: "0.1", Repeats: true, Set: networkSetter(setRouterAddress),
		Meaning: "the router's address with its prefix, such as 10.9.0.1/16; it makes the network native: the rest of the prefix is the pool",
	},
	{
		Name: "tuntap-router-nat", Kind: ini.Text, Since: "0.1", Set: networkSetter(setNAT),
		Meaning: "off, auto or an interface: masquerade the pool out of it (auto: where the default route points)",
	},
	{
		Name: "tuntap-router-attach", Kind: ini.Text, Since: "0.1", Set: networkSetter(setAttach),
		Meaning: "all or asked: give every vassal without a device one, with an address, a route and resolvers",
	},
	{
		Name: "tuntap-router-isolate", Kind: ini.Bool, Since: "0.1", Set: networkSetter(setBool(func(n *NetworkOptions) **bool { return &n.Isolate })),
		Meaning: "after all rules, keep vassals from each other, from private addresses and from the host",
	},
	{
		Name: "tuntap-router-direct", Kind: ini.Bool, Since: "0.1", Set: networkSetter(setBool(func(n *NetworkOptions) **bool { return &n.Direct })),
		Meaning: "switch packets between vassals in the router instead of sending them through the host's kernel",
	},
	{
		Name: "tuntap-router-names", Kind: ini.Bool, Since: "0.1", Set: networkSetter(setBool(func(n *NetworkOptions) **bool { return &n.Names })),
		Meaning: "answer DNS at the router's address: the names of vassals, and for the rest the host's resolvers; off: vassals ask those themselves",
	},
	{
		Name: "tuntap-router-flows", Kind: ini.Int, Since: "0.1", Set: networkSetter(setFlows),
		Meaning: "how many connections and UDP flows a vassal may have at once through the host's kernel; 0: any number (default 4096)",
	},
	{
		Name: "tuntap-router-firewall-in", Kind: ini.Rule, Since: "0.1", Repeats: true, Set: networkSetter(setRule(func(n *NetworkOptions) *[]firewall.Rule { return &n.In })),
		Meaning: "ACTION [SRC DST [PROTO [PORTS]]]: a rule for packets towards vassals; the first that matches decides",
	},
	{
		Name: "tuntap-router-firewall-out", Kind: ini.Rule, Since: "0.1", Repeats: true, Set: networkSetter(setRule(func(n *NetworkOptions) *[]firewall.Rule { return &n.Out })),
		Meaning: "ACTION [SRC DST [PROTO [PORTS]]]: a rule for packets from vassals; the first that matches decides",
	},
	{
		Name: "tuntap-router-route", Kind: ini.Rule, Since: "0.1", Repeats: true, Set: networkSetter(setRoute),
		Meaning: "SRC DST IP:PORT: send packets from vassals to another router's gateway, as UDP; the first that matches decides",
	},
	{
		Name: "tuntap-router-gateway-peer", Kind: ini.Text, Since: "0.1", Repeats: true, Set: networkSetter(setFarEnd),
		Meaning: "IP:PORT of another router's gateway that may send packets, and that devices' own rules may route to; targets of tuntap-router-route may anyway",
	},
	{
		Name: "tuntap-use-credentials", Kind: ini.Bool, Since: "0.1", Set: networkSetter(setCredentials),
		Meaning: "close connections of devices that are not this emperor's unless they begin with their user's ids, which go to the stats",
	},
	{
		Name: "tuntap-router-stats", Kind: ini.Text, Since: "0.1", Set: func(o *RouterOptions, p ini.Pair) error { o.stats = p.Value; return nil },
		Meaning: "the stats socket of networks that name none",
	},
}

func addNetwork(o *RouterOptions, p ini.Pair) error {
	words := strings.Fields(p.Value)
	if len(words) < 2 || len(words) > 4 {
		return fmt.Errorf("want DEVICE SOCKET [STATS [GATEWAY]], got %q", p.Value)
	}
	n := NetworkOptions{Device: words[0], Socket: words[1], Pos: p.Pos}
	if len(words) > 2 && words[2] != `""` {
		n.Stats = words[2]
	}
	if len(words) > 3 {
		var err error
		if n.Gateway, err = parseGateway(words[3]); err != nil {
			return err
		}
	}
	if len(n.Device) > 15 || strings.ContainsAny(n.Device, "/:") {
		return fmt.Errorf("%q is no device name: at most 15 characters, without slashes and colons", n.Device)
	}
	for _, other := range o.Networks {
		if other.Device == n.Device || other.Socket == n.Socket {
			return fmt.Errorf("device and socket must be a network's own; %s uses one of them", other.Pos)
		}
	}
	for _, set := range o.common {
		set(&n)
	}
	o.Networks = append(o.Networks, n)
	return nil
}

// networkSetter makes an option of one network belong to the tuntap-router
// line before it, or to all when it comes before any.
func networkSetter(set func(*NetworkOptions, ini.Pair) error) func(*RouterOptions, ini.Pair) error {
	return func(o *RouterOptions, p ini.Pair) error {
		if len(o.Networks) > 0 {
			return set(&o.Networks[len(o.Networks)-1], p)
		}
		o.common = append(o.common, func(n *NetworkOptions) { _ = set(n, p) })
		return set(new(NetworkOptions), p)
	}
}

func setRouterAddress(n *NetworkOptions, p ini.Pair) error {
	a, err := netip.ParsePrefix(p.Value)
	if err != nil {
		return fmt.Errorf("%q: want the router's address with its prefix, such as 10.9.0.1/16", p.Value)
	}
	bits := a.Addr().BitLen() - a.Bits()
	if bits < 2 {
		return fmt.Errorf("%s leaves no address for a vassal", a)
	}
	if a.Addr() == a.Masked().Addr() {
		return fmt.Errorf("%s is the network itself; the router needs an address in it, such as %s", a, a.Addr().Next())
	}
	if a.Addr().Is4() && a.Addr() == lastAddr(a) {
		return fmt.Errorf("%s is the broadcast address; the router needs another, such as %s", a, a.Masked().Addr().Next())
	}
	if a.Addr().IsMulticast() || a.Addr().IsLoopback() || a.Addr().IsLinkLocalUnicast() || a.Addr().Is4In6() {
		return fmt.Errorf("%s cannot be a router's address", a)
	}
	n.Addresses = append(n.Addresses, a)
	return nil
}

func setNAT(n *NetworkOptions, p ini.Pair) error {
	if p.Value == "" || strings.ContainsAny(p.Value, "/ \t") || len(p.Value) > 15 {
		return fmt.Errorf("%s = %s: want off, auto or an interface such as eth0", p.Key, p.Value)
	}
	n.NAT = p.Value
	return nil
}

func setFlows(n *NetworkOptions, p ini.Pair) error {
	count, err := strconv.ParseUint(p.Value, 10, 31)
	if err != nil {
		return fmt.Errorf("%s = %s: want a number, or 0 for no limit", p.Key, p.Value)
	}
	flows := uint32(count)
	n.Flows = &flows
	return nil
}

func setAttach(n *NetworkOptions, p ini.Pair) error {
	if p.Value != "all" && p.Value != "asked" {
		return fmt.Errorf("%s = %s: want all or asked", p.Key, p.Value)
	}
	n.AttachAll = p.Value == "all"
	return nil
}

func setBool(field func(*NetworkOptions) **bool) func(*NetworkOptions, ini.Pair) error {
	return func(n *NetworkOptions, p ini.Pair) error {
		switch p.Value {
		case "on", "off", "true", "false", "yes", "no", "1", "0":
		default:
			return fmt.Errorf("%s = %s: want on or off", p.Key, p.Value) // a typo must not change isolation
		}
		on := ini.ParseBool(p.Value)
		*field(n) = &on
		return nil
	}
}

func setRule(chain func(*NetworkOptions) *[]firewall.Rule) func(*NetworkOptions, ini.Pair) error {
	return func(n *NetworkOptions, p ini.Pair) error {
		r, err := firewall.ParseRule(p.Value)
		if err != nil {
			return fmt.Errorf("firewall rule: %w", err)
		}
		r.File, r.Line = p.Pos.File, p.Pos.Line
		*chain(n) = append(*chain(n), r)
		return nil
	}
}
