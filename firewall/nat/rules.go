package nat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// chain is one of ours: where it hangs and what it holds.
type chain struct {
	table, name string
	hook        string   // the kernel's chain with our jump; "" for one that only our own lead to
	match       string   // before the jump
	rules       []string // without "-A name"
}

// jump is the rule that leads to the chain, without "-A hook".
func (c *chain) jump() string {
	if c.match == "" {
		return "-j " + c.name
	}
	return c.match + " -j " + c.name
}

// jumps counts those among the rules of the hook as iptables -S prints them.
func (c *chain) jumps(hook []string) (n int) {
	for _, line := range hook {
		if line == "-A "+c.hook+" "+c.jump() {
			n++
		}
	}
	return n
}

// tables in the order of their change: nothing is translated that is not yet
// judged.
var tables = []string{"filter", "mangle", "nat"}

// toHost is the match of what is for the host itself, by any of its addresses.
const toHost = "-m addrtype --dst-type LOCAL"

// hung are all chains that may have a jump, without contents.
func hung(base string) []chain {
	return []chain{
		{table: "filter", hook: "FORWARD", name: base + "-fwd"},
		{table: "filter", hook: "INPUT", name: base + "-in"},
		{table: "mangle", hook: "PREROUTING", name: base + "-dev"},
		{table: "nat", hook: "PREROUTING", match: toHost, name: base + "-dns"},
		{table: "nat", hook: "PREROUTING", match: toHost, name: base + "-pre"},
		{table: "nat", hook: "OUTPUT", match: toHost, name: base + "-out"},
		{table: "nat", hook: "POSTROUTING", name: base + "-post"},
	}
}

// side is a network as one family of addresses sees it.
type side struct {
	device     string
	pools      []netip.Prefix
	gateways   []netip.Addr
	masquerade bool
	uplinks    []string // of this moment; there may be none
	published  bool     // some of its vassals' ports are
	loopback   bool     // and some of those by the host's loopback
	judged     bool     // by a router, which keeps networks apart
	shared     bool     // with others than vassals
	localnet   bool     // route_localnet is on, or will be, by whomever
	flows      uint32   // that one vassal may have at once; 0: any number
	namesAt    uint16   // the port of the gateways where names are answered; 0: where they are asked for
}

// ofFamily takes from a network what one family needs; false if it has no pool.
func ofFamily(n *Network, v6 bool, uplinks []string) (side, bool) {
	s := side{device: n.Device, masquerade: n.Masquerade != "", uplinks: uplinks, judged: n.Judged, shared: n.Shared, flows: n.Flows, namesAt: n.NamesAt}
	if s.namesAt == dnsPort {
		s.namesAt = 0
	}
	for _, p := range n.Pool {
		if p.Addr().Is6() == v6 {
			s.pools = append(s.pools, p.Masked())
		}
	}
	for _, a := range n.Gateways {
		if a.Is6() == v6 {
			s.gateways = append(s.gateways, a.WithZone(""))
		}
	}
	return s, len(s.pools) > 0
}

// plan is what one family's chains are made of.
type plan struct {
	v6        bool
	sides     []side
	guards    []string // devices by which only replies and what DNAT let in may come
	published []Published
	redirects []string // the rules for names that are answered at another port
	// keep leaves the chains of what is published as they are.
	keep bool
}

// buildChains writes the chains of one family; those that would be empty and
// that only some hosts need are left out.
func buildChains(base string, p *plan) (chains []chain) {
	rules := map[string][]string{
		base + "-fwd":  forwardRules(p.sides, p.guards),
		base + "-in":   inputRules(p.sides, p.v6),
		base + "-dev":  deviceRules(p.sides, p.v6),
		base + "-post": postRules(p.sides, p.v6),
		base + "-dns":  p.redirects,
	}
	var always []string
	if len(p.sides) > 0 {
		always = []string{base + "-fwd", base + "-in", base + "-post"}
	}
	var tree []chain
	if len(p.published) > 0 {
		always = append(always, base+"-pre", base+"-out")
		rules[base+"-pre"], rules[base+"-out"], tree = publishRules(base, p)
	}
	for _, c := range hung(base) {
		if c.rules = rules[c.name]; len(c.rules) > 0 || slices.Contains(always, c.name) {
			chains = append(chains, c)
		}
	}
	return append(chains, tree...)
}

const (
	replies = "-m conntrack --ctstate RELATED,ESTABLISHED"
	notDNAT = "-m conntrack ! --ctstate DNAT"
	isDNAT  = "-m conntrack --ctstate DNAT"
	// Not only what is new: conntrack calls many a crafted packet invalid.
	guarded = "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)

// forwardRules first says for all networks what may come in, so that a network
// cannot be entered from another one unless a router let that pass, by a rule of
// its chain out, and then what may go out. What is
// published is accepted only between vassals of one network: whether others
// may come is the operator's to say.
func forwardRules(sides []side, guards []string) (rules []string) {
	add := func(format string, args ...any) { rules = append(rules, fmt.Sprintf(format, args...)) }
	for _, s := range sides {
		for _, pool := range s.pools {
			add("-d %s -o %s %s -j ACCEPT", pool, s.device, replies)
			for _, from := range judgedOthers(sides, &s) {
				for _, source := range from.pools {
					add("-s %s -d %s -i %s -o %s -j ACCEPT", source, pool, from.device, s.device)
				}
			}
			if s.masquerade && !s.shared {
				add("-d %s ! -i %s -o %s %s -j DROP", pool, s.device, s.device, notDNAT)
			}
		}
	}
	for _, s := range sides {
		for _, pool := range s.pools {
			if s.masquerade {
				add("-s %s -i %s -o %s -j ACCEPT", pool, s.device, s.device)
			} else {
				add("-s %s -i %s -o %s %s -j ACCEPT", pool, s.device, s.device, isDNAT)
			}
			for _, uplink := range s.uplinks {
				add("-s %s -i %s -o %s -j ACCEPT", pool, s.device, uplink)
			}
			if s.published { // to whom was let in
				add("-s %s -i %s %s -j ACCEPT", pool, s.device, replies)
			}
			if s.masquerade && !s.shared { // to any other device: what the host's own rules and policy say
				add("-s %s -i %s -j RETURN", pool, s.device)
			}
		}
		if s.masquerade && !s.shared {
			add("-i %s -j DROP", s.device)
		}
	}
	for _, dev := range guards {
		add("-i %s %s", dev, guarded)
	}
	return rules
}

// judgedOthers are the networks whose routers know that s is another one.
func judgedOthers(sides []side, s *side) []side {
	if !s.judged {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(sides), func(o side) bool { return !o.judged || o.device == s.device })
}

func inputRules(sides []side, v6 bool) (rules []string) {
	echo := "-p icmp -m icmp --icmp-type 8"
	if v6 {
		echo = "-p ipv6-icmp -m icmp6 --icmpv6-type 128"
	}
	for _, s := range sides {
		for _, pool := range s.pools {
			from := fmt.Sprintf("-s %s -i %s", pool, s.device)
			rules = append(rules, from+" "+replies+" -j ACCEPT")
			if !s.masquerade {
				continue
			}
			port := cmp.Or(s.namesAt, dnsPort)
			for _, gateway := range s.gateways {
				to := fmt.Sprintf("%s -d %s", from, gateway)
				rules = append(rules,
					to+" "+echo+" -j ACCEPT",
					fmt.Sprintf("%s -p udp -m udp --dport %d -j ACCEPT", to, port),
					fmt.Sprintf("%s -p tcp -m tcp --dport %d -j ACCEPT", to, port))
			}
		}
	}
	return rules
}

// dnsPort is where resolvers are asked.
const dnsPort uint16 = 53

// redirects lead the vassals of a network that ask for names at its gateways to the
// port where they are answered, since somebody else has theirs. In a kernel's bridge
// its own table does, for vassals only.
func (s *side) redirects() (rules []string) {
	if s.namesAt == 0 || !s.judged {
		return nil
	}
	for _, gateway := range s.gateways {
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules, fmt.Sprintf("-d %s -i %s -p %s -m %[3]s --dport %d -j DNAT --to-destination %s",
				gateway, s.device, proto, dnsPort, netip.AddrPortFrom(gateway, s.namesAt)))
		}
	}
	return rules
}

// loopbackPrefix is what never comes by a wire.
func loopbackPrefix(v6 bool) string {
	if v6 {
		return "::1/128"
	}
	return "127.0.0.0/8"
}

// deviceRules judge what comes in by a router's device before anything else
// does. Where route_localnet is on, the kernel would take loopback addresses
// from there (CVE-2020-8558); for IPv6 it never does.
func deviceRules(sides []side, v6 bool) (rules []string) {
	add := func(format string, args ...any) { rules = append(rules, fmt.Sprintf(format, args...)) }
	bits := 32
	if v6 {
		bits = 128
	}
	for _, s := range sides {
		if s.localnet {
			add("-d %s -i %s -j DROP", loopbackPrefix(v6), s.device)
			add("-s %s -i %s -j DROP", loopbackPrefix(v6), s.device)
		}
		if s.flows > 0 {
			add("-i %s -m conntrack --ctstate NEW -m connlimit --connlimit-above %d --connlimit-mask %d --connlimit-saddr -j DROP", s.device, s.flows, bits)
		}
	}
	return rules
}

// postRules give packets a source by which the answer finds back.
func postRules(sides []side, v6 bool) (rules []string) {
	add := func(format string, args ...any) { rules = append(rules, fmt.Sprintf(format, args...)) }
	for _, s := range sides {
		for _, pool := range s.pools {
			for _, uplink := range s.uplinks {
				add("-s %s ! -d %s -o %s -j MASQUERADE", pool, pool, uplink)
			}
			// From a vassal to another one, or itself, by the host's address:
			// without, the answer would not pass the host again.
			if s.published {
				add("-s %s -o %s %s -j MASQUERADE", pool, s.device, isDNAT)
			}
		}
		if s.loopback {
			add("-s %s -o %s -j MASQUERADE", loopbackPrefix(v6), s.device)
		}
	}
	return rules
}

// publishRules writes what packets for the host's own addresses pass: from
// elsewhere, and from its own programs. Loopback is for the latter only.
func publishRules(base string, p *plan) (pre, out []string, tree []chain) {
	var anywhere, inside []Published
	for _, one := range p.published {
		if one.Host.IsLoopback() {
			inside = append(inside, one)
		} else {
			anywhere = append(anywhere, one)
		}
	}
	d := dispatcher{base: base}
	except := exceptions(p)
	within := d.tree(inside, "-j")
	shared := d.tree(anywhere, "-g")
	pre = slices.Concat([]string{"-d " + loopbackPrefix(p.v6) + " -j RETURN"}, except, shared)
	out = slices.Concat(within, except, shared)
	return pre, out, d.chains
}

// exceptions are addresses of the host by which a port that is published on all
// of them is not reached: a router's, for the names that its vassals ask for,
// and link-local ones, which the kernel forwards nothing from.
func exceptions(p *plan) (rules []string) {
	if p.v6 {
		rules = append(rules, "-d fe80::/10 -j RETURN")
	}
	for _, proto := range []string{"udp", "tcp"} {
		if !slices.ContainsFunc(p.published, func(one Published) bool {
			return one.Host.IsUnspecified() && one.protocol() == proto && one.First <= 53 && 53 <= one.Last
		}) {
			continue
		}
		for _, s := range p.sides {
			for _, gateway := range s.gateways {
				rules = append(rules, fmt.Sprintf("-d %s -p %s -m %[2]s --dport 53 -j RETURN", gateway, proto))
			}
		}
	}
	return rules
}

// restoreText is what iptables-restore --noflush reads for one table: naming a
// chain empties it (or makes it), and the table changes in one step.
func restoreText(table string, chains []chain, removal string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range chains {
		if c.table == table {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c.name)
		}
	}
	for _, c := range chains {
		if c.table != table {
			continue
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.name, rule)
		}
	}
	b.WriteString(removal)
	b.WriteString("COMMIT\n")
	return b.String()
}

// guardedDevice reads a rule as iptables -S prints it and returns the device
// that it guards, if it is a guard of any instance.
func guardedDevice(rule string) (string, bool) {
	f := strings.Fields(rule) // -A CHAIN -i DEV …
	if len(f) < 4 || f[2] != "-i" || !strings.HasPrefix(f[1], chainPrefix) {
		return "", false
	}
	return f[3], strings.Join(f[4:], " ") == guarded
}
