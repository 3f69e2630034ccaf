package tuntap

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"fiefdom/firewall"
)

// peer is a vassal's device, handed over or behind a stream of frames. The
// loop owns it; what is atomic may be read from outside.
type peer struct {
	id  uint64
	net *network

	conn *source // the stream, or the life line; nil when it is over
	dev  *source // the handed-over device; nil for a stream of frames

	// who it is
	emperor    bool // the emperor connected
	known      bool // identified: its packets may be read
	handed     bool
	gone       bool
	vassal     string // empty: foreign
	may        []netip.Prefix
	granted    bool // may was given at the hand-over and does not follow the reservations
	uid, gid   uint32
	pid        int32
	prefixes   []netip.Prefix // registered
	addrs      []netip.Addr   // that registered them
	registered [2]bool        // by family
	refused    int64          // the loop's clock when a refusal was last told

	// its own rules and what was seen of it
	chain [2]*firewall.Chain // by firewall.Direction, from its ini
	block ruleBlock          // from its device
	parts [2]*fragments      // by firewall.Direction; allocated when first needed
	flows *flows             // likewise
	memo  *firewall.Memo     // likewise: of verdicts of long chains

	// the stream
	in     frameReader
	half   int64 // the loop's clock when the current half frame began
	onTick bool  // in the router's list of half frames
	out    []byte
	hand   handing

	answers bucket // of rejects to it

	public  atomic.Pointer[identity]
	drops   drops
	rx, tx  traffic
	noted   [reasons]int64
	unknown bool // in the router's list of unregistered foreigners
	shown   bool // in the network's list of peers
}

// traffic counts packets and their bytes.
type traffic struct{ packets, bytes counter }

func (t *traffic) add(packets, bytes int) {
	t.packets.add(uint64(packets))
	t.bytes.add(uint64(bytes))
}

// identity is what the outside may know of a peer; replaced, never changed.
type identity struct {
	vassal    string
	addresses []netip.Addr
	uid, gid  uint32
	pid       int32
	chain     [2]*firewall.Chain
}

// publish makes the peer's identity visible to Snapshot.
func (p *peer) publish() {
	p.public.Store(&identity{
		vassal: p.vassal, addresses: slices.Clone(p.addrs), uid: p.uid, gid: p.gid, pid: p.pid, chain: p.chain,
	})
}

func (p *peer) stats() PeerStats {
	id := p.public.Load()
	return PeerStats{
		Vassal: id.vassal, Addresses: append([]netip.Addr{}, id.addresses...), UID: id.uid, GID: id.gid, PID: id.pid,
		RxPackets: p.rx.packets.load(), RxBytes: p.rx.bytes.load(),
		TxPackets: p.tx.packets.load(), TxBytes: p.tx.bytes.load(),
		Drops: p.drops.snapshot(),
		In:    ruleStats(id.chain[firewall.In]), Out: ruleStats(id.chain[firewall.Out]),
	}
}

// fragmentsOf returns the peer's table of first parts for one direction.
func (p *peer) fragmentsOf(dir firewall.Direction) *fragments {
	if p.parts[dir] == nil {
		p.parts[dir] = new(fragments)
	}
	return p.parts[dir]
}

// ask asks a chain about a packet from or to the peer.
func (p *peer) ask(c *firewall.Chain, pk *packet) (firewall.Action, int) {
	if !c.WorthMemo() {
		return c.Verdict(&pk.flow)
	}
	if p.memo == nil {
		p.memo = new(firewall.Memo)
	}
	return p.memo.Verdict(c, &pk.flow)
}

// bucket is a token bucket on the loop's clock. The zero value is full.
type bucket struct {
	used int64 // tokens that are not back yet
	last int64
}

// take takes one of size tokens, which come back at rate a second.
func (b *bucket) take(now, rate, size int64) bool {
	const second = int64(1e9)
	if back := (now - b.last) * rate / second; back > 0 {
		b.used = max(0, b.used-back)
		b.last = now
	}
	if b.used >= size {
		return false
	}
	b.used++
	return true
}
