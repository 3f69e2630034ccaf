package nat

import (
	"fmt"
	"net/netip"
	"strings"
)

// chain is one of ours: where it hangs and what it holds.
type chain struct {
	table, hook, name string
	rules             []string // without "-A name"
}

// side is a network as one family of addresses sees it.
type side struct {
	device   string
	pools    []netip.Prefix
	gateways []netip.Addr
	uplinks  []string
}

// ofFamily takes from a network what one family needs; false if it has no pool.
func ofFamily(n *Network, v6 bool, uplinks []string) (side, bool) {
	s := side{device: n.Device, uplinks: uplinks}
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

// buildChains writes the chains of one family. Guards are the devices through
// which only replies and what DNAT let in may pass.
func buildChains(base string, v6 bool, sides []side, guards []string) []chain {
	return []chain{
		{table: "filter", hook: "FORWARD", name: base + "-fwd", rules: forwardRules(sides, guards)},
		{table: "filter", hook: "INPUT", name: base + "-in", rules: inputRules(sides, v6)},
		{table: "nat", hook: "POSTROUTING", name: base + "-post", rules: masqueradeRules(sides)},
	}
}

const (
	replies = "-m conntrack --ctstate RELATED,ESTABLISHED"
	notDNAT = "-m conntrack ! --ctstate DNAT"
	// Not only what is new: conntrack calls many a crafted packet invalid.
	guarded = "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)

// forwardRules first says for all networks what may come in, so that a network
// cannot be entered from another one, and then what may go out.
func forwardRules(sides []side, guards []string) (rules []string) {
	add := func(format string, args ...any) { rules = append(rules, fmt.Sprintf(format, args...)) }
	for _, s := range sides {
		for _, pool := range s.pools {
			add("-d %s -o %s %s -j ACCEPT", pool, s.device, replies)
			add("-d %s ! -i %s -o %s %s -j DROP", pool, s.device, s.device, notDNAT)
		}
	}
	for _, s := range sides {
		for _, pool := range s.pools {
			add("-s %s -i %s -o %s -j ACCEPT", pool, s.device, s.device)
			for _, uplink := range s.uplinks {
				add("-s %s -i %s -o %s -j ACCEPT", pool, s.device, uplink)
			}
			// To any other device: what the host's own rules and policy say.
			add("-s %s -i %s -j RETURN", pool, s.device)
		}
		add("-i %s -j DROP", s.device)
	}
	for _, dev := range guards {
		add("-i %s %s", dev, guarded)
	}
	return rules
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
			for _, gateway := range s.gateways {
				to := fmt.Sprintf("%s -d %s", from, gateway)
				rules = append(rules,
					to+" "+echo+" -j ACCEPT",
					to+" -p udp -m udp --dport 53 -j ACCEPT",
					to+" -p tcp -m tcp --dport 53 -j ACCEPT")
			}
		}
	}
	return rules
}

func masqueradeRules(sides []side) (rules []string) {
	for _, s := range sides {
		for _, pool := range s.pools {
			for _, uplink := range s.uplinks {
				rules = append(rules, fmt.Sprintf("-s %s ! -d %s -o %s -j MASQUERADE", pool, pool, uplink))
			}
		}
	}
	return rules
}

// restoreText is what iptables-restore --noflush reads: naming a chain empties
// it (or makes it), and each table changes in one step. The filter comes
// first, so that nothing is masqueraded that is not yet judged.
func restoreText(chains []chain) string {
	var b strings.Builder
	for _, table := range []string{"filter", "nat"} {
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
		b.WriteString("COMMIT\n")
	}
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
