package nat

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// published reads what instances publish from their chains.
func (f *netfilter) published() (list []Published, err error) {
	if !f.uses("nat") {
		return nil, nil
	}
	lines, err := f.dump("nat")
	if err != nil && len(lines) == 0 {
		return nil, err
	}
	if !slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, "-A "+chainPrefix) && strings.Contains(s, "-j DNAT") }) {
		return nil, nil
	}
	devices, err := f.poolDevices()
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for chain, rules := range parseTable(lines).chains {
		if !strings.HasPrefix(chain, chainPrefix) {
			continue
		}
		for _, r := range rules {
			p, ok := r.published(f.v6)
			if !ok {
				continue
			}
			for pool, dev := range devices {
				if pool.Contains(p.To.Addr()) {
					p.Device = dev
				}
			}
			key := p.String() + " " + p.To.String()
			i, twice := seen[key] // one rule a source, and in the chains for others and for the host's programs
			if !twice {
				seen[key] = len(list)
				list = append(list, p)
				continue
			}
			for _, from := range p.From {
				if !slices.Contains(list[i].From, from) {
					list[i].From = append(list[i].From, from)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b Published) int { return strings.Compare(a.String(), b.String()) })
	return list, nil
}

// poolDevices finds the networks' devices by the rules that replies come in by.
func (f *netfilter) poolDevices() (map[netip.Prefix]string, error) {
	lines, err := f.dump("filter")
	if err != nil && len(lines) == 0 {
		return nil, err
	}
	devices := map[netip.Prefix]string{}
	for _, line := range lines {
		w := strings.Fields(line) // -A fiefdom-NAME-fwd -d POOL -o DEVICE …
		if len(w) < 6 || !strings.HasPrefix(w[1], chainPrefix) || w[2] != "-d" || w[4] != "-o" {
			continue
		}
		if pool, err := netip.ParsePrefix(w[3]); err == nil {
			devices[pool] = w[5]
		}
	}
	return devices, nil
}

// published reads a rule that Published.rules wrote.
func (r *parsedRule) published(v6 bool) (p Published, ok bool) {
	_, target, ok := strings.Cut(r.line, "-j DNAT --to-destination ")
	if !ok {
		return p, false
	}
	p.Host = all(v6).Addr()
	for _, m := range r.matches {
		prefix, err := netip.ParsePrefix(m.value)
		switch m.option {
		case "-p":
			p.Proto = map[string]uint8{"tcp": 6, "udp": 17}[m.value]
		case "-d":
			ok = ok && err == nil
			p.Host = prefix.Addr()
		case "-s":
			ok = ok && err == nil
			p.From = []netip.Prefix{prefix}
		case "--dport":
			first, last, isRange := strings.Cut(m.value, ":")
			if !isRange {
				last = first
			}
			a, err1 := strconv.ParseUint(first, 10, 16)
			b, err2 := strconv.ParseUint(last, 10, 16)
			ok = ok && err1 == nil && err2 == nil
			p.First, p.Last = uint16(a), uint16(b)
		}
	}
	p.To, ok = readTarget(target, p.First, ok)
	return p, ok && p.Proto != 0
}

// readTarget reads ADDRESS, ADDRESS:PORT and ADDRESS:PORT-PORT/BASE.
func readTarget(s string, first uint16, ok bool) (netip.AddrPort, bool) {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "/")
	if to, err := netip.ParseAddrPort(s); err == nil {
		return to, ok
	}
	if i := strings.LastIndexByte(s, '-'); i > 0 {
		if to, err := netip.ParseAddrPort(s[:i]); err == nil {
			return to, ok
		}
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return netip.AddrPortFrom(a, first), ok && err == nil
}

// baseChain is one of nftables that sees what is forwarded.
type baseChain struct {
	family, table, name string
	header              string // as nft prints it
	drops               bool   // by policy
	rules               []string
}

// forwardBases lists those of tables that are not iptables'. Without nft there
// are none that anybody made.
func forwardBases(v6 bool) (bases []baseChain, err error) {
	path, err := exec.LookPath("nft")
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	own := "ip"
	if v6 {
		own = "ip6"
	}
	out, err := nft(path, "list", "chains")
	if err != nil {
		return nil, err
	}
	var family, table, name string
	for line := range strings.Lines(out) {
		w := strings.Fields(line)
		switch {
		case len(w) > 2 && w[0] == "table":
			family, table = w[1], w[2]
		case len(w) > 1 && w[0] == "chain":
			name = w[1]
		case len(w) > 3 && w[0] == "type" && strings.Contains(line, "hook forward "):
			iptables := family == own && slices.Contains([]string{"filter", "mangle", "security"}, table)
			if iptables || family != "inet" && family != own {
				continue
			}
			b := baseChain{family: family, table: table, name: name, drops: strings.Contains(line, "policy drop")}
			b.header = fmt.Sprintf("chain %s of table %s %s: %s", name, family, table, strings.TrimSpace(line))
			list, err := nft(path, "list", "chain", family, table, name)
			if err != nil {
				return nil, err
			}
			for rule := range strings.Lines(list) {
				b.rules = append(b.rules, strings.TrimSpace(rule))
			}
			bases = append(bases, b)
		}
	}
	return bases, nil
}

func nft(path string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// closes reports whether it ends what nobody let in, and lets what was
// translated in by no rule of its own.
func (b *baseChain) closes() bool {
	for _, r := range b.rules {
		switch {
		case strings.Contains(r, "ct status dnat accept"):
			return false
		case r == "drop", r == "reject", strings.HasPrefix(r, "reject with"), strings.HasPrefix(r, "counter") && strings.HasSuffix(r, "drop"):
			return true
		}
	}
	return b.drops
}

// unless lists the rules that may let in what begins.
func (b *baseChain) unless() []string {
	return slices.DeleteFunc(slices.Clone(b.rules), func(r string) bool {
		return !strings.HasSuffix(r, " accept") && r != "accept" || strings.HasPrefix(r, "ct state") && !strings.Contains(r, "new")
	})
}

func (b *baseChain) by() string {
	if b.table == "firewalld" {
		return ByFirewalld
	}
	return ByNftables
}

func (b *baseChain) fix() []string {
	if b.by() == ByFirewalld {
		return []string{"sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf", "firewall-cmd --reload"}
	}
	return []string{fmt.Sprintf("nft insert rule %s %s %s ct status dnat accept", b.family, b.table, b.name)}
}
