package nat

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bridgeTables is what an instance has in nftables for its bridges: two tables
// of its name, one of the family bridge, which sees every frame of a vassal, and
// one of the family inet, for what is meant for the host.
type bridgeTables struct {
	name      string
	bridges   map[string]Bridge
	ports     map[string]Port // by device
	published []Published     // that vassals may reach at the host's address in their bridge
	strangers []netip.Prefix  // the pools of routers' networks
}

// strangersTo are the pools of the other networks, also those whose addresses are
// not private.
func (t *bridgeTables) strangersTo(name string) []netip.Prefix {
	all := slices.Clone(t.strangers)
	for _, other := range slices.Sorted(maps.Keys(t.bridges)) {
		if br := t.bridges[other]; other != name && br.Ours {
			all = append(all, br.Pool...)
		}
	}
	return all
}

// nftText collects commands for nft.
type nftText struct{ strings.Builder }

func (t *nftText) add(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// whole is the text that makes both tables, in place of those that there may be.
func (t *bridgeTables) whole() string {
	var b nftText
	for _, family := range []string{"bridge", "inet"} {
		b.add("table %s %s", family, t.name)
		b.add("delete table %s %s", family, t.name)
		b.add("table %s %s", family, t.name)
	}
	b.add("add map bridge %s senders { type ifname : verdict; }", t.name)
	b.add("add map bridge %s receivers { type ifname : verdict; }", t.name)
	b.add("add chain bridge %s sent { type filter hook prerouting priority -300; policy accept; }", t.name)
	b.add("add rule bridge %s sent iifname vmap @senders", t.name)
	b.add("add chain bridge %s received { type filter hook postrouting priority 300; policy accept; }", t.name)
	b.add("add rule bridge %s received oifname vmap @receivers", t.name)
	b.add("add chain inet %s input { type filter hook input priority -10; policy accept; }", t.name)
	for _, v6 := range families {
		b.add("add map inet %s vassals%s { type ifname . %s : verdict; }", t.name, digit(v6), addrType(v6))
		b.add("add rule inet %s input iifname . %s saddr vmap @vassals%s", t.name, ip(v6), digit(v6))
	}
	b.add("add set bridge %s published { type inet_proto . inet_service; flags interval; }", t.name)
	b.add("add set bridge %s answering { type inet_service; flags interval; auto-merge; }", t.name)
	b.WriteString(t.publish())
	b.WriteString(t.names())
	for _, name := range slices.Sorted(maps.Keys(t.bridges)) {
		b.WriteString(t.bridge(name))
	}
	for _, device := range slices.Sorted(maps.Keys(t.ports)) {
		b.WriteString(t.admit(device))
	}
	return b.String()
}

// names is the text that leads vassals' questions where names are answered, if that
// is elsewhere in some bridge.
func (t *bridgeTables) names() string {
	if !t.led() {
		return ""
	}
	var b nftText
	b.add("add chain inet %s names { type nat hook prerouting priority -101; policy accept; }", t.name)
	for _, v6 := range families {
		b.add("add set inet %s asking%s { type ifname . %s; }", t.name, digit(v6), addrType(v6))
	}
	for _, name := range slices.Sorted(maps.Keys(t.bridges)) {
		br := t.bridges[name]
		for _, rule := range br.namesRules() {
			b.add("add rule inet %s names %s", t.name, rule)
		}
	}
	return b.String()
}

// led says whether a bridge has its questions led elsewhere.
func (t *bridgeTables) led() bool {
	for _, br := range t.bridges {
		if br.led() {
			return true
		}
	}
	return false
}

// publish is the text that puts what is published in place of what was.
func (t *bridgeTables) publish() string {
	var b nftText
	b.add("flush set bridge %s published", t.name)
	all := t.openRanges()
	if len(all) > 0 {
		b.add("add element bridge %s published { %s }", t.name, strings.Join(all, ", "))
	}
	b.add("flush set bridge %s answering", t.name)
	for _, p := range t.published {
		if p.Proto == unix.IPPROTO_UDP {
			b.add("add element bridge %s answering { %d-%d }", t.name, p.To.Port(), p.To.Port()+p.Last-p.First)
		}
	}
	return b.String()
}

// openRanges are the ports that are published at all addresses of a family, as
// nft's intervals: none overlaps another.
func (t *bridgeTables) openRanges() (all []string) {
	type span struct {
		proto       string
		first, last uint16
	}
	var spans []span
	for _, p := range t.published {
		if p.Host.IsUnspecified() { // else it is another address than the bridge's
			spans = append(spans, span{p.protocol(), p.First, p.Last})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(strings.Compare(a.proto, b.proto), cmp.Compare(a.first, b.first)) })
	for i := 0; i < len(spans); {
		s := spans[i]
		for i++; i < len(spans) && spans[i].proto == s.proto && spans[i].first <= s.last; i++ {
			s.last = max(s.last, spans[i].last)
		}
		ports := strconv.Itoa(int(s.first))
		if s.last != s.first {
			ports += "-" + strconv.Itoa(int(s.last))
		}
		all = append(all, s.proto+" . "+ports)
	}
	return all
}

// bridge is the text that adds a bridge's chains.
func (t *bridgeTables) bridge(name string) string {
	var b nftText
	br := t.bridges[name]
	if br.strangers = t.strangersTo(name); br.Isolate {
		for _, v6 := range families {
			b.add("add set bridge %s walls%s-%s { type %s; flags interval; auto-merge; elements = %s; }", t.name, digit(v6), name, addrType(v6), braces(br.walls(v6)))
		}
		b.add("add chain inet %s to-%s", t.name, name)
		for _, rule := range br.hostRules() {
			b.add("add rule inet %s to-%s %s", t.name, name, rule)
		}
	}
	b.add("add chain bridge %s from-%s", t.name, name)
	for _, rule := range br.bridgeRules() {
		b.add("add rule bridge %s from-%s %s", t.name, name, rule)
	}
	return b.String()
}

// flowsKept is how many senders of datagrams an isolated vassal may answer at
// once, and flowTime for how long. The kernel takes 16 bytes for each at once.
const (
	flowsKept = 512
	flowTime  = "180s"
)

// admit is the text that adds a port.
func (t *bridgeTables) admit(device string) string {
	var b nftText
	p := t.ports[device]
	br := t.bridges[p.Bridge]
	if br.Isolate {
		for _, v6 := range p.families() {
			b.add("add set bridge %s %s { type inet_service . %s . inet_service; size %d; flags dynamic,timeout; timeout %s; }", t.name, p.flows(v6), addrType(v6), flowsKept, flowTime)
		}
		b.add("add chain bridge %s to-%s", t.name, device)
		for _, rule := range p.receiveRules() {
			b.add("add rule bridge %s to-%s %s", t.name, device, rule)
		}
	}
	b.add("add chain bridge %s port-%s", t.name, device)
	for _, rule := range p.portRules(&br) {
		b.add("add rule bridge %s port-%s %s", t.name, device, rule)
	}
	b.WriteString(t.elements("add", &p, br.Isolate))
	return b.String()
}

// elements are what joins a port's chains to the rest.
func (t *bridgeTables) elements(verb string, p *Port, isolate bool) string {
	var b nftText
	b.add("%s element bridge %s senders { %q : goto port-%s }", verb, t.name, p.Device, p.Device)
	for _, a := range p.Addrs {
		if t.led() {
			b.add("%s element inet %s asking%s { %q . %s }", verb, t.name, digit(a.Is6()), p.Bridge, a)
		}
	}
	if !isolate {
		return b.String()
	}
	b.add("%s element bridge %s receivers { %q : goto to-%s }", verb, t.name, p.Device, p.Device)
	for _, a := range p.Addrs {
		b.add("%s element inet %s vassals%s { %q . %s : goto to-%s }", verb, t.name, digit(a.Is6()), p.Bridge, a, p.Bridge)
	}
	return b.String()
}

// release is the text that takes a port away.
func (t *bridgeTables) release(p *Port) string {
	var b nftText
	isolate := t.bridges[p.Bridge].Isolate
	b.WriteString(t.elements("delete", p, isolate))
	b.add("flush chain bridge %s port-%s", t.name, p.Device)
	b.add("delete chain bridge %s port-%s", t.name, p.Device)
	if isolate {
		b.add("flush chain bridge %s to-%s", t.name, p.Device)
		b.add("delete chain bridge %s to-%s", t.name, p.Device)
		for _, v6 := range p.families() {
			b.add("delete set bridge %s %s", t.name, p.flows(v6))
		}
	}
	return b.String()
}

// counts are how many verdicts and rules the listings have, if nobody else
// changed anything.
func (t *bridgeTables) counts() (elements, chains int) {
	if chains = 3 + len(t.bridges); t.led() {
		chains++
	}
	for _, br := range t.bridges {
		if br.Isolate {
			chains++
		}
	}
	for _, p := range t.ports {
		elements, chains = elements+1, chains+1
		if t.bridges[p.Bridge].Isolate {
			elements, chains = elements+1+len(p.Addrs), chains+1
		}
	}
	return elements, chains
}

func addrType(v6 bool) string {
	if v6 {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}
