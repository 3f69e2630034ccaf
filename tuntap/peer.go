package tuntap

import (
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/cpu"

	"fiefdom/firewall"
)

// peer is a vassal's device, handed over or behind a stream of frames. The
// first shard opens, shows and closes it. Its own shard is the one that reads
// its packets: that of its device, the first one for a stream.
//
// Other shards find a peer in the network's table only. So what is set before
// it is in there, and never after, needs no care.
type peer struct {
	id     uint64
	net    *network
	shard  *shard
	dev    *source // the handed-over device; nil for a stream of frames
	vassal string  // empty: foreign

	// for every shard
	gone   atomic.Bool               // set with the network's mutex held
	holds  atomic.Pointer[holding]   // changed with the network's mutex held
	own    atomic.Pointer[ownRules]  // from its ini; nil: none
	block  atomic.Pointer[ruleBlock] // its own rules, from its device
	flows  atomic.Pointer[flows]     // made when first needed
	public atomic.Pointer[identity]
	taps   atomic.Pointer[[]*lookout] // who looks at its packets; nil: nobody
	stream stream

	_ cpu.CacheLinePad // what is written for each packet is kept from what is read for each

	// its own shard's
	sent    [2]memory // of its packets, by firewall.Direction
	answers bucket    // of rejects to it
	asked   bucket    // of its questions for names
	refused int64     // the shard's clock when a refusal was last told

	_ cpu.CacheLinePad

	came memory // of packets from the host; the host's device's shard's

	_ cpu.CacheLinePad

	// counted by every shard
	rx, tx traffic
	drops  drops
	noted  notes
	book   atomic.Pointer[dropBook] // examples of the drops; made at the first one

	// the first shard's
	emperor  bool // the emperor connected
	known    bool // identified: its packets may be read
	unproved bool // it has to begin with its credentials
	handed   bool
	unknown  bool // in the router's list of unregistered foreigners; never if the emperor connected
	shown    bool // in the network's list of peers
	granted  bool // what it may register was given at the hand-over and does not follow the reservations
	uid, gid uint32
	pid      int32
	in       frameReader
	half     int64 // the first shard's clock when the current half frame began
	onTick   bool  // in the router's list of half frames
	hand     handing
	rules    []DeviceRule // that the emperor told, as they were told
}

// newPeer is one that holds nothing yet.
func newPeer(n *network) *peer {
	p := &peer{net: n, shard: n.r.shards[0]}
	p.holds.Store(new(holding))
	return p
}

// holding is what a peer has and may have of a network's addresses; replaced,
// never changed.
type holding struct {
	may        []netip.Prefix // empty: one undeclared address a family
	prefixes   []netip.Prefix // registered
	addrs      []netip.Addr   // that registered them
	registered [2]bool        // by family
}

// memory is what the decisions about earlier packets left behind. It belongs to
// the shard that reads the packets, and to one of their senders: a flood hurts
// the memory of its own sender only.
type memory struct {
	parts *fragments     // made when first needed
	memo  *firewall.Memo // likewise: of verdicts of long chains
}

// traffic counts packets and their bytes.
type traffic struct{ packets, bytes counter }

func (t *traffic) add(packets, bytes int) {
	t.packets.add(uint64(packets))
	t.bytes.add(uint64(bytes))
}

// identity is what the outside may know of a peer; replaced, never changed.
type identity struct {
	vassal   string
	uid, gid uint32
	pid      int32
}

// publish makes the peer's identity visible to Snapshot.
func (p *peer) publish() {
	p.public.Store(&identity{
		vassal: p.vassal, uid: p.uid, gid: p.gid, pid: p.pid,
	})
}

func (p *peer) stats() PeerStats {
	id, own := p.public.Load(), p.own.Load()
	return PeerStats{
		Vassal: id.vassal, Addresses: append([]netip.Addr{}, p.holds.Load().addrs...), UID: id.uid, GID: id.gid, PID: id.pid,
		RxPackets: p.rx.packets.load(), RxBytes: p.rx.bytes.load(),
		TxPackets: p.tx.packets.load(), TxBytes: p.tx.bytes.load(),
		Drops: p.drops.snapshot(),
		In:    ruleStats(own.of(firewall.In)), Out: ruleStats(own.of(firewall.Out)),
	}
}

// passed notes a first part that was let through.
func (m *memory) passed(pk *packet, now int64) {
	if m.parts == nil {
		m.parts = new(fragments)
	}
	m.parts.passed(pk, now)
}

// follow lets a later part follow its first one.
func (m *memory) follow(pk *packet, now int64) verdict {
	if m.parts == nil || !m.parts.follows(pk, now) {
		return drop(DropFragment)
	}
	return verdict{}
}

// ask asks a chain about a packet.
func (m *memory) ask(c *firewall.Chain, pk *packet) (firewall.Action, int) {
	if !c.WorthMemo() {
		return c.Verdict(&pk.flow)
	}
	if m.memo == nil {
		m.memo = new(firewall.Memo)
	}
	return m.memo.Verdict(c, &pk.flow)
}

// bucket is a token bucket on a shard's clock. The zero value is full.
type bucket struct {
	at int64 // when all is back that was taken
}

// take takes one of size tokens, which come back at rate a second.
func (b *bucket) take(now, rate, size int64) bool { return b.takeSome(now, 1, rate, size) }

// takeSome takes several, or none.
func (b *bucket) takeSome(now, count, rate, size int64) bool {
	each := int64(1e9) / rate
	at := max(b.at, now) + count*each
	if at-now > size*each {
		return false
	}
	b.at = at
	return true
}
