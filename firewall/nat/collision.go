package nat

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Who decides, as Collision.By names them.
const (
	ByUFW       = "ufw"
	ByDocker    = "Docker"
	ByFirewalld = "firewalld"
	ByNftables  = "nftables"
	ByPolicy    = "the policy of FORWARD"
	ByRule      = "a rule"
	ByInput     = "INPUT"
)

// Collision is where the host's own firewall and what is published are at odds,
// seen from other machines.
type Collision struct {
	Ports  []Published
	Closed bool     // the host's firewall keeps others from them; else it would, were they not published
	By     string   // whose doing it is
	Rule   string   // which decides, as iptables prints it
	Unless []string // rules before it by which some may come nevertheless
	Fix    []string // commands that open them
}

// Collisions tells of what this instance publishes.
func (h *Host) Collisions() ([]Collision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []Collision
	for _, v6 := range families {
		list := ofKind(h.published, v6, 0)
		if len(list) == 0 {
			continue
		}
		f, err := h.filter(v6)
		if err != nil {
			return nil, err
		}
		some, err := f.collisions(list)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// Collisions tells of what all instances publish in the caller's network
// namespace, as the kernel has it, and lists that.
func Collisions() (found []Collision, list []Published, err error) {
	for _, v6 := range families {
		if v6 && !hasIPv6() {
			continue
		}
		f, err := newNetfilter(v6)
		if errors.Is(err, errNoIPTables) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		some, err := f.published()
		if err != nil {
			return nil, nil, err
		}
		list = append(list, some...)
		at, err := f.collisions(some)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, at...)
	}
	return found, list, nil
}

// String is one sentence for whoever runs the host.
func (c *Collision) String() string {
	if !c.Closed {
		return fmt.Sprintf("%s: open for other machines although INPUT closes (%s): what is published passes FORWARD instead", Ports(c.Ports), c.Rule)
	}
	s := fmt.Sprintf("%s: closed for other machines by %s", Ports(c.Ports), c.By)
	if c.Rule != "" {
		s += " (" + c.Rule + ")"
	}
	if len(c.Unless) > 0 {
		s += fmt.Sprintf(", except for whom %q lets in", c.Unless[0])
	}
	return s
}

// Ports names some of a list, and says how many there are more.
func Ports(list []Published) string {
	const most = 4
	var names []string
	for i := range min(len(list), most) {
		names = append(names, list[i].String())
	}
	if len(list) > most {
		names = append(names, fmt.Sprintf("%d more", len(list)-most))
	}
	return strings.Join(names, ", ")
}

// view is what decides about packets of one family.
type view struct {
	f        *netfilter
	filter   *table
	bases    []baseChain // of nftables, iptables' own aside
	visitors []string    // devices that other machines come by
}

func (f *netfilter) collisions(list []Published) ([]Collision, error) {
	list = slices.DeleteFunc(slices.Clone(list), func(p Published) bool { return p.Host.IsLoopback() })
	if len(list) == 0 {
		return nil, nil
	}
	lines, err := f.dump("filter")
	if err != nil && len(lines) == 0 {
		return nil, err
	}
	v := view{f: f, filter: parseTable(lines)}
	if v.bases, err = forwardBases(f.v6); err != nil {
		return nil, err
	}
	if v.visitors, err = defaultDevices(f.v6, nil); err != nil {
		return nil, err
	}
	if len(v.visitors) == 0 {
		if v.visitors, err = foreignLinks(); err != nil {
			return nil, err
		}
		own := func(dev string) bool {
			return slices.ContainsFunc(list, func(p Published) bool { return p.Device == dev })
		}
		v.visitors = slices.DeleteFunc(v.visitors, own)
	}
	var found []Collision
	for _, p := range list {
		c, ok := v.judge(&p)
		if !ok {
			continue
		}
		if i := slices.IndexFunc(found, c.alike); i >= 0 {
			found[i].Ports = append(found[i].Ports, p)
			for _, line := range c.Fix {
				if !slices.Contains(found[i].Fix, line) {
					found[i].Fix = append(found[i].Fix, line)
				}
			}
			continue
		}
		found = append(found, c)
	}
	return found, nil
}

// alike reports whether two are one but for the ports.
func (c *Collision) alike(d Collision) bool {
	return c.Closed == d.Closed && c.By == d.By && c.Rule == d.Rule && slices.Equal(c.Unless, d.Unless)
}

// judge looks at one port from the devices that others come by.
func (v *view) judge(p *Published) (Collision, bool) {
	for _, dev := range v.visitors {
		there := v.forward(p, dev)
		d := v.filter.walk("FORWARD", &there)
		if refuses(d.target) {
			by := v.who(d.rule)
			return Collision{
				Ports: []Published{*p}, Closed: true, By: by, Rule: d.rule,
				Unless: accepting(d.unless), Fix: v.fix(p, dev, by),
			}, true
		}
		for _, base := range v.bases {
			if base.closes() {
				return Collision{
					Ports: []Published{*p}, Closed: true, By: base.by(), Rule: base.header,
					Unless: base.unless(), Fix: base.fix(),
				}, true
			}
		}
		direct := probe{in: dev, src: there.src, dst: p.hostPrefix(), proto: p.protocol(), port: p.First, asked: p.First}
		if d := v.filter.walk("INPUT", &direct); refuses(d.target) && len(accepting(d.unless)) == 0 {
			return Collision{Ports: []Published{*p}, By: ByInput, Rule: d.rule}, true
		}
	}
	return Collision{}, false
}

// forward is the first packet from another machine.
func (v *view) forward(p *Published, dev string) probe {
	to := p.To.Addr()
	return probe{
		in: dev, out: p.Device, src: p.source(), dst: netip.PrefixFrom(to, to.BitLen()),
		proto: p.protocol(), port: p.To.Port(), asked: p.First, dnat: true,
	}
}

// source is where those may be who may come.
func (p *Published) source() netip.Prefix {
	if len(p.From) > 0 {
		return p.From[0]
	}
	return all(p.v6())
}

func (p *Published) hostPrefix() netip.Prefix {
	if p.Host.IsUnspecified() {
		return all(p.v6())
	}
	return netip.PrefixFrom(p.Host, p.Host.BitLen())
}

func all(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func refuses(target string) bool { return target == "DROP" || target == "REJECT" }

// accepting picks the rules that let something through.
func accepting(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return !strings.Contains(r, "-j ACCEPT") })
}

// who says whose a rule or policy of FORWARD is.
func (v *view) who(rule string) string {
	has := func(start string) bool {
		for name := range v.filter.chains {
			if strings.HasPrefix(name, start) {
				return true
			}
		}
		return false
	}
	chain, policy := strings.CutPrefix(rule, "-P ")
	if !policy {
		chain = strings.TrimPrefix(rule, "-A ")
	}
	chain, _, _ = strings.Cut(chain, " ")
	switch {
	case strings.HasPrefix(chain, "ufw"), policy && (has("ufw-") || has("ufw6-")):
		return ByUFW
	case strings.HasPrefix(chain, "DOCKER"), policy && has("DOCKER-USER"):
		return ByDocker
	case strings.HasPrefix(chain, "FWD"), !policy && has("FORWARD_direct"):
		return ByFirewalld
	case policy:
		return ByPolicy
	}
	return ByRule
}

// fix lists the commands that let through whoever may come to a port.
func (v *view) fix(p *Published, dev, by string) (lines []string) {
	tool, family := "iptables", "ipv4"
	if v.f.v6 {
		tool, family = "ip6tables", "ipv6"
	}
	ports := portRange(p.To.Port(), p.To.Port()+(p.Last-p.First))
	sources := p.From
	if len(sources) == 0 {
		sources = []netip.Prefix{all(p.v6())}
	}
	for _, s := range sources {
		from, word := "any", ""
		if s.Bits() > 0 {
			from, word = s.String(), "-s "+s.String()+" "
		}
		// Not who comes by the vassal's own address.
		rule := fmt.Sprintf("%s-d %s -p %s --dport %s %s -j ACCEPT", word, p.To.Addr(), p.protocol(), ports, isDNAT)
		switch by {
		case ByUFW:
			lines = append(lines, fmt.Sprintf("ufw route allow proto %s from %s to %s port %s", p.protocol(), from, p.To.Addr(), ports))
		case ByDocker:
			lines = append(lines, fmt.Sprintf("%s -I DOCKER-USER %s", tool, rule))
		case ByFirewalld:
			lines = append(lines, fmt.Sprintf("firewall-cmd --direct --add-rule %s filter FORWARD 0 %s", family, rule))
		default:
			lines = append(lines, fmt.Sprintf("%s -I FORWARD %s", tool, rule))
		}
	}
	if by != ByUFW && by != ByFirewalld && v.stopsLater(p, dev) {
		chain := cmp.Or(map[string]string{ByDocker: "DOCKER-USER"}[by], "FORWARD")
		lines = append(lines, fmt.Sprintf("%s -I %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", tool, chain))
	}
	return lines
}

// stopsLater reports whether the answers, or what follows them, are refused
// even though the first packet is let in.
func (v *view) stopsLater(p *Published, dev string) bool {
	there := v.forward(p, dev)
	there.state = "ESTABLISHED"
	answer := there
	answer.in, answer.out, answer.src, answer.dst, answer.port = there.out, there.in, there.dst, there.src, 0
	return refuses(v.filter.walk("FORWARD", &there).target) || refuses(v.filter.walk("FORWARD", &answer).target)
}
