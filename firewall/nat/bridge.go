package nat

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Bridge is one of the kernel's bridges that vassals have devices in.
type Bridge struct {
	Name      string
	Pool      []netip.Prefix // the network's
	Own       []netip.Addr   // the host's addresses in it
	Resolvers []netip.Addr   // that isolated vassals may ask
	Isolate   bool           // as the router's: no vassal starts anything towards its neighbours, private ranges and the host
	NamesAt   uint16         // the port of its own addresses where names are answered; 53: where vassals ask; 0: by nobody of ours
	Ours      bool           // nobody but vassals is in it: it is a stranger to isolated ones of other bridges

	strangers []netip.Prefix // the pools of the other networks
}

// led says that vassals' questions are led to another port: somebody else has the
// usual one, and answers others in the bridge there.
func (b *Bridge) led() bool { return b.NamesAt != 0 && b.NamesAt != dnsPort }

// namesRules lead the questions of vassals, and of nobody else.
func (b *Bridge) namesRules() (rules []string) {
	if !b.led() {
		return nil
	}
	for _, a := range b.Own {
		family := ip(a.Is6())
		rules = append(rules, fmt.Sprintf("iifname %q iifname . %s saddr @asking%s %[2]s daddr %[4]s meta l4proto { tcp, udp } th dport %d dnat %[2]s to %[6]s",
			b.Name, family, digit(a.Is6()), a, dnsPort, netip.AddrPortFrom(a, b.NamesAt)))
	}
	return rules
}

// Port is the host's end of a vassal's device in a bridge, and what may come
// out of it.
type Port struct {
	Device string // the host's end
	Bridge string
	MAC    net.HardwareAddr
	Addrs  []netip.Addr
}

func (b *Bridge) check() error {
	if err := checkDevice(b.Name); err != nil {
		return err
	}
	if strings.Contains(b.Name, "@") {
		return fmt.Errorf("bridge %s: nft has no name for it; choose one of letters, digits, _ . and -", b.Name)
	}
	for _, p := range b.Pool {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("bridge %s: %v is not an address range", b.Name, p)
		}
	}
	for _, a := range slices.Concat(b.Own, b.Resolvers) {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("bridge %s: %v is not an address", b.Name, a)
		}
	}
	return nil
}

func (p *Port) check() error {
	if err := checkDevice(p.Device); err != nil {
		return err
	}
	if len(p.MAC) != 6 || len(p.Addrs) == 0 {
		return fmt.Errorf("device %s: nothing may come out of it without a MAC and an address", p.Device)
	}
	for _, a := range p.Addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("device %s: %v is not an address", p.Device, a)
		}
	}
	return nil
}

// neverStarted is what an isolated vassal does not begin to talk to, whatever
// the bridge: see the router's isolate.
var neverStarted = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b:1::/48",
}

// walls are what isolation of the bridge denies, of one family. An IPv6 address
// that stands for an IPv4 one (NAT64, mapped, 6to4) is as that one is.
func (b *Bridge) walls(v6 bool) (all []netip.Prefix) {
	var four []netip.Prefix
	add := func(p netip.Prefix) {
		if p.Addr().Is4() {
			four = append(four, p.Masked())
		}
		if p.Addr().Is6() == v6 {
			all = append(all, p.Masked())
		}
	}
	for _, text := range neverStarted {
		add(netip.MustParsePrefix(text))
	}
	for _, p := range slices.Concat(b.Pool, b.strangers) {
		add(p)
	}
	for _, a := range b.Own {
		add(netip.PrefixFrom(a, a.BitLen()))
	}
	if !v6 {
		return all
	}
	for _, p := range four {
		old := p.Addr().As4()
		for _, in := range []struct {
			prefix []byte
			at     int
		}{{[]byte{0x00, 0x64, 0xff, 0x9b}, 12}, {[]byte{10: 0xff, 11: 0xff}, 12}, {[]byte{0x20, 0x02}, 2}} {
			var b [16]byte
			copy(b[:], in.prefix)
			copy(b[in.at:], old[:])
			all = append(all, netip.PrefixFrom(netip.AddrFrom16(b), 8*in.at+p.Bits()))
		}
	}
	return all
}

func ofFamilyOf[T interface{ Is6() bool }](all []T, v6 bool) (some []T) {
	for _, a := range all {
		if a.Is6() == v6 {
			some = append(some, a)
		}
	}
	return some
}

// braces writes a set.
func braces[T fmt.Stringer](all []T) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String()
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// ip is how nft calls a family's header.
func ip(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

// bridgeRules are the rules of a bridge's own chain: what vassals may send whose
// source is their own.
func (b *Bridge) bridgeRules() []string {
	rules := []string{
		"ip daddr 127.0.0.0/8 drop",
		"ip6 daddr ::1 drop",
		// Nobody in here is a router or gives addresses away.
		"icmp type redirect drop",
		"icmpv6 type { nd-router-advert, nd-redirect } drop",
		"udp sport 67 udp dport 68 drop",
		"udp sport 547 udp dport 546 drop",
	}
	if !b.Isolate {
		return append(rules, "accept")
	}
	rules = append(rules,
		"ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
		"ip daddr != @walls4-"+b.Name+" accept",
		"ip6 daddr != @walls6-"+b.Name+" accept",
		// Answers, by their own word.
		"tcp flags & (ack | rst) != 0 accept",
		"icmp type { echo-reply, destination-unreachable, time-exceeded, parameter-problem, timestamp-reply } accept",
		"icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-reply } accept",
	)
	for _, v6 := range families {
		if own := ofFamilyOf(b.Own, v6); len(own) > 0 {
			echo := "icmp type echo-request"
			if v6 {
				echo = "icmpv6 type echo-request"
			}
			rules = append(rules,
				fmt.Sprintf("%s daddr %s %s accept", ip(v6), braces(own), echo),
				// Which goes to another vassal, or is stopped on its way to the host.
				fmt.Sprintf("%s daddr %s meta l4proto . th dport @published accept", ip(v6), braces(own)),
				// Where br_netfilter masquerades, who asked is not known here yet by the
				// address that is answered; the host takes answers only (hostRules).
				fmt.Sprintf("%s daddr %s udp sport @answering accept", ip(v6), braces(own)))
		}
		if ask := ofFamilyOf(slices.Concat(b.Own, b.Resolvers), v6); len(ask) > 0 {
			rules = append(rules, fmt.Sprintf("%s daddr %s meta l4proto { tcp, udp } th dport 53 accept", ip(v6), braces(ask)))
		}
	}
	return append(rules, "counter drop")
}

// portRules are the rules of a port's own chain: whose frames they may be.
func (p *Port) portRules(br *Bridge) []string {
	rules := []string{
		fmt.Sprintf("ether saddr != %s counter drop", p.MAC),
		// A bridge that is the host's way to a trunk would take them to any VLAN.
		"ether type { 8021q, 8021ad } counter drop",
	}
	if four := ofFamilyOf(p.Addrs, false); len(four) > 0 {
		rules = append(rules, fmt.Sprintf("arp operation { request, reply } arp saddr ether %s arp saddr ip %s accept", p.MAC, braces(four)))
	}
	if six := ofFamilyOf(p.Addrs, true); len(six) > 0 {
		var targets []string
		for _, a := range six {
			targets = append(targets, fmt.Sprintf("0x%x", a.As16()))
		}
		from := "ip6 saddr " + braces(six)
		rules = append(rules,
			from+" icmpv6 type nd-neighbor-solicit accept",
			// The address that is told (RFC 4861, 4.4); nft can name it only from 1.0.9 on.
			from+" icmpv6 type nd-neighbor-advert @th,64,128 { "+strings.Join(targets, ", ")+" } accept",
			from+" icmpv6 type nd-neighbor-advert counter drop",
		)
	}
	rules = append(rules, br.questionRules()...)
	for _, v6 := range p.families() {
		from := fmt.Sprintf("%s saddr %s", ip(v6), braces(ofFamilyOf(p.Addrs, v6)))
		if br.Isolate {
			rules = append(rules, fmt.Sprintf("%s udp sport . %s daddr . udp dport @%s accept", from, ip(v6), p.flows(v6)))
		}
		rules = append(rules, from+" goto from-"+p.Bridge)
	}
	return append(rules, "counter drop")
}

// receiveRules note datagrams that reach an isolated vassal from behind the
// walls, so that it may answer them.
func (p *Port) receiveRules() (rules []string) {
	for _, v6 := range p.families() {
		rules = append(rules, fmt.Sprintf("%[1]s saddr @walls%[2]s-%[3]s update @%[4]s { udp dport . %[1]s saddr . udp sport }", ip(v6), digit(v6), p.Bridge, p.flows(v6)))
	}
	return rules
}

// families are those that the port has addresses of.
func (p *Port) families() (all []bool) {
	for _, v6 := range families {
		if len(ofFamilyOf(p.Addrs, v6)) > 0 {
			all = append(all, v6)
		}
	}
	return all
}

func (p *Port) flows(v6 bool) string { return "flows" + digit(v6) + "-" + p.Device }

func digit(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

// hostRules are what isolated vassals of a bridge may begin with the host itself.
func (b *Bridge) hostRules() []string {
	rules := []string{"ct state established,related return", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } return"}
	for _, v6 := range families {
		own := ofFamilyOf(b.Own, v6)
		if len(own) == 0 {
			continue
		}
		echo := "icmp type echo-request"
		if v6 {
			echo = "icmpv6 type echo-request"
		}
		to := fmt.Sprintf("%s daddr %s ", ip(v6), braces(own))
		rules = append(rules, to+echo+" return", to+fmt.Sprintf("meta l4proto { tcp, udp } th dport %d return", cmp.Or(b.NamesAt, dnsPort)))
	}
	return append(rules, "counter drop")
}
