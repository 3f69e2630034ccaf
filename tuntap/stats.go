package tuntap

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"fiefdom/firewall"
)

// counter counts for several shards, and is read by anybody. (Where only one
// writes, a store would cost as much as the addition: BenchmarkCounter.)
type counter struct{ n atomic.Uint64 }

func (c *counter) add(n uint64) { c.n.Add(n) }
func (c *counter) load() uint64 { return c.n.Load() }

// drops counts dropped packets by reason.
type drops [reasons]counter

func (d *drops) snapshot() map[Reason]uint64 {
	var m map[Reason]uint64
	for i := range d {
		n := d[i].load()
		if n == 0 {
			continue
		}
		if m == nil {
			m = make(map[Reason]uint64)
		}
		m[Reason(i)] = n
	}
	return m
}

// NetworkStats is what the router counted in one network.
type NetworkStats struct {
	Name  string            `json:"name"`
	Peers []PeerStats       `json:"peers"`
	Drops map[Reason]uint64 `json:"drops,omitempty"` // of packets that belong to no peer
	In    []RuleStats       `json:"in,omitempty"`    // chain in, in order
	Out   []RuleStats       `json:"out,omitempty"`   // chain out, in order

	Routes  []RuleStats   `json:"routes,omitempty"`
	Gateway *GatewayStats `json:"gateway,omitempty"` // nil: there is none

	Totals Totals `json:"totals"`
}

// Totals are what all peers of a network together had since the router's start,
// those that are gone too. rx and tx are seen from the peers.
type Totals struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
}

func (t *Totals) add(p PeerStats) {
	t.RxPackets += p.RxPackets
	t.RxBytes += p.RxBytes
	t.TxPackets += p.TxPackets
	t.TxBytes += p.TxBytes
}

// GatewayStats is what went through a network's UDP gateway. rx and tx are seen
// from the vassals: tx went to other routers. Bytes are of IP packets.
type GatewayStats struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
}

func (g *udpGateway) stats() *GatewayStats {
	if g == nil {
		return nil
	}
	return &GatewayStats{
		RxPackets: g.received.packets.load(), RxBytes: g.received.bytes.load(),
		TxPackets: g.sent.packets.load(), TxBytes: g.sent.bytes.load(),
	}
}

// RuleStats is a rule and how often it decided.
type RuleStats struct {
	Rule firewall.Rule `json:"rule"`
	Hits uint64        `json:"hits"`
}

// PeerStats is what the router counted for one peer. rx and tx are seen from
// the vassal: tx is what it sent (dropped packets included), rx what it was
// given. Bytes are of IP packets, without frame headers.
type PeerStats struct {
	Vassal    string            `json:"vassal,omitempty"` // empty: foreign
	Addresses []netip.Addr      `json:"addresses"`
	UID       uint32            `json:"uid"` // of the process that connected; 0 and PID 0 for a device that was handed over
	GID       uint32            `json:"gid"`
	PID       int32             `json:"pid"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	Drops     map[Reason]uint64 `json:"drops,omitempty"`
	In        []RuleStats       `json:"in,omitempty"` // the vassal's own rules
	Out       []RuleStats       `json:"out,omitempty"`
}

func ruleStats(c *firewall.Chain) []RuleStats {
	if c == nil {
		return nil
	}
	rules := c.Rules()
	s := make([]RuleStats, len(rules))
	for i, rule := range rules {
		s[i] = RuleStats{Rule: rule, Hits: c.Hits(i)}
	}
	return s
}

// UWSGIStats is the document of uWSGI's stats server (tuntap-router's third
// word). Its tx is from the router to the peer, with the frames' headers.
type UWSGIStats struct {
	Version string      `json:"version"`
	PID     int         `json:"pid"` // the router's
	UID     int         `json:"uid"`
	GID     int         `json:"gid"`
	Cwd     string      `json:"cwd"`
	Peers   []UWSGIPeer `json:"peers"`

	Goroutines int `json:"goroutines,omitempty"` // of the router; ours, uWSGI has none
}

// UWSGIPeer is one peer of UWSGIStats.
type UWSGIPeer struct {
	Addr    string `json:"addr"`    // empty until it is registered
	Addr32  uint32 `json:"addr_32"` // the IPv4 address' bytes read as an integer of the host's order
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	PID     int32  `json:"pid"`
	Tx      uint64 `json:"tx"`      // bytes, router to peer
	Rx      uint64 `json:"rx"`      // bytes, peer to router
	Dropped uint64 `json:"dropped"` // packets
}

// UWSGI turns the counters into uWSGI's document. head carries what is not the
// network's: version, pid, uid, gid, cwd and goroutines.
func (s NetworkStats) UWSGI(head UWSGIStats) UWSGIStats {
	head.Peers = make([]UWSGIPeer, len(s.Peers))
	for i, p := range s.Peers {
		u := UWSGIPeer{
			UID: p.UID, GID: p.GID, PID: p.PID,
			Tx: p.RxBytes + frameHeader*p.RxPackets,
			Rx: p.TxBytes + frameHeader*p.TxPackets,
		}
		for _, n := range p.Drops {
			u.Dropped += n
		}
		for _, a := range p.Addresses {
			if u.Addr == "" || a.Is4() && u.Addr32 == 0 {
				u.Addr = a.String()
			}
			if a.Is4() && u.Addr32 == 0 {
				b := a.As4()
				u.Addr32 = binary.NativeEndian.Uint32(b[:])
			}
		}
		head.Peers[i] = u
	}
	return head
}
