package tuntap

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// walls is what isolate denies: private ranges, other vassals, the host. Where
// it is off, strangers alone: the vassals of the emperor's other networks.
type walls struct {
	denied    bart.Lite
	multicast bool
	own       map[netip.Addr]bool // of the router
	host      map[netip.Addr]bool // with the router's
	resolvers map[netip.Addr]bool
	published openPorts
}

// Never reached from an isolated vassal: this host, RFC 1918, 6598, 4193,
// link-local (cloud metadata), multicast, reserved; local-use NAT64 (RFC 8215).
var privateRanges = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "64:ff9b:1::/48")

func newWalls(cfg *NetworkConfig) *walls {
	w := &walls{
		multicast: cfg.Isolate, published: newOpenPorts(cfg.Published),
		own: make(map[netip.Addr]bool), host: make(map[netip.Addr]bool), resolvers: make(map[netip.Addr]bool),
	}
	for _, pfx := range cfg.Strangers {
		w.denied.Insert(pfx.Masked())
	}
	for _, a := range slices.Concat(cfg.Host, cfg.Own) {
		w.host[a] = true
	}
	for _, a := range cfg.Own {
		w.own[a] = true
	}
	for _, a := range cfg.Resolvers {
		w.resolvers[a] = true
	}
	if !cfg.Isolate {
		return w
	}
	for _, pfx := range privateRanges {
		w.denied.Insert(pfx)
	}
	for _, pfx := range cfg.Pool {
		w.denied.Insert(pfx.Masked())
	}
	for a := range w.host {
		w.denied.Insert(single(a))
	}
	return w
}

// behind reports whether a, or the IPv4 address within it, is denied.
func (w *walls) behind(a netip.Addr) bool {
	if w.denied.Lookup(a) {
		return true
	}
	in, ok := embedded(a)
	return ok && w.denied.Lookup(in)
}

// embedded returns the IPv4 address that an IPv6 address of a translation or
// tunnel prefix stands for: NAT64 (RFC 6052), mapped and compatible (RFC 4291),
// 6to4 (RFC 3056).
func embedded(a netip.Addr) (netip.Addr, bool) {
	if a.Is4() {
		return netip.Addr{}, false
	}
	b := a.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint32(b[8:12])
	switch {
	case high == 0x0064_ff9b_0000_0000 && low == 0, high == 0 && (low == 0xffff || low == 0):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

// denies judges a packet from p. Only what the vassal starts is judged:
// answers pass.
func (w *walls) denies(p *peer, pk *packet, now int64) bool {
	dst := pk.flow.Dst
	if dst.IsMulticast() {
		return w.multicast
	}
	if !w.behind(dst) || isAnswer(pk) {
		return false
	}
	if typ, ok := pk.icmpType(); ok && w.own[dst] && (typ == icmpEcho && !pk.v6 || typ == icmp6Echo && pk.v6) {
		return false
	}
	dns := pk.flow.HasPorts && pk.flow.DstPort == dnsPort && (pk.flow.Proto == protoUDP || pk.flow.Proto == protoTCP)
	if dns && (w.own[dst] || w.resolvers[dst]) {
		return false
	}
	if w.opens(&pk.flow) {
		return false
	}
	if pk.flow.Proto != protoUDP {
		return true
	}
	t := p.flows.Load()
	return t == nil || !t.answers(&pk.flow, now)
}

// ICMP types (RFC 792, RFC 4443, RFC 4861).
const (
	icmpEchoReply   = 0
	icmpUnreachable = 3
	icmpRedirect    = 5
	icmpEcho        = 8
	icmpTimeExceed  = 11
	icmpParameter   = 12
	icmpTimeReply   = 14

	icmp6Unreachable = 1
	icmp6Parameter   = 4
	icmp6Echo        = 128
	icmp6EchoReply   = 129
)

// isAnswer reports whether a packet answers, by its own word: a TCP segment
// with ACK or RST, an ICMP error or reply. (UDP is known by its flow.)
func isAnswer(pk *packet) bool {
	if typ, ok := pk.icmpType(); ok {
		if pk.v6 {
			return typ >= icmp6Unreachable && typ <= icmp6Parameter || typ == icmp6EchoReply
		}
		switch typ {
		case icmpEchoReply, icmpUnreachable, icmpTimeExceed, icmpParameter, icmpTimeReply:
			return true
		}
		return false
	}
	return pk.flow.Proto == protoTCP && len(pk.l4) >= 20 && pk.l4[13]&(tcpACK|tcpRST) != 0
}

// note remembers a UDP packet that reached p from behind the walls, so that p
// may answer it.
func (w *walls) note(p *peer, pk *packet, now int64) {
	if pk.flow.Proto != protoUDP || !pk.flow.HasPorts || !w.behind(pk.flow.Src) {
		return
	}
	t := p.flows.Load()
	if t == nil {
		p.flows.CompareAndSwap(nil, new(flows)) // another shard may have been first
		t = p.flows.Load()
	}
	t.came(&pk.flow, now)
}
