package tuntap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"fiefdom/firewall"
)

// CaptureQuery says whose packets are looked at, and which of them. Zero fields
// are any.
type CaptureQuery struct {
	Vassal  string       `json:"vassal"`
	Network string       `json:"network,omitempty"`
	Proto   uint8        `json:"proto,omitempty"`
	Host    netip.Prefix `json:"host,omitzero"`  // of one of the ends
	Port    uint16       `json:"port,omitempty"` // of one of the ends
	Snap    int          `json:"snap,omitempty"` // bytes of each packet; 0: all
}

func (q *CaptureQuery) wants(pk *packet) bool {
	f := &pk.flow
	return (q.Proto == 0 || q.Proto == f.Proto) &&
		(!q.Host.IsValid() || q.Host.Contains(f.Src) || q.Host.Contains(f.Dst)) &&
		(q.Port == 0 || f.HasPorts && (f.SrcPort == q.Port || f.DstPort == q.Port))
}

// Bounds of captures.
const (
	captures    = 8       // at a time
	captureRoom = 1 << 20 // bytes that wait for a slow reader; more are lost, and counted
)

// lookout is somebody who looks at packets. Shards put records into it and never
// wait for him.
type lookout struct {
	query CaptureQuery
	conn  net.Conn
	peers []*peer
	wake  chan struct{} // of one: there is something to write

	mu   sync.Mutex
	buf  []byte
	lost uint64
}

// Capture writes what is decided about the packets of a vassal's peers to conn,
// as records that ReadCapture reads, until conn's other end is closed or a peer
// is gone. conn is the capture's from now on, whatever happens. Nobody's packets
// wait for it.
func (r *Router) Capture(q CaptureQuery, conn net.Conn) error {
	c := &lookout{query: q, conn: conn, wake: make(chan struct{}, 1)}
	if err := r.shards[0].mail.do(func() error { return r.attach(c) }); err != nil {
		return errors.Join(err, conn.Close())
	}
	return nil
}

// attach is called on the first shard, which opens and closes peers.
func (r *Router) attach(c *lookout) error {
	if len(r.captures) >= captures {
		return fmt.Errorf("there are %d captures already; end one of them", captures)
	}
	for _, n := range r.networks {
		if c.query.Network != "" && c.query.Network != n.name {
			continue
		}
		for _, p := range n.peers {
			if c.query.Vassal != "" && p.public.Load().vassal == c.query.Vassal {
				c.peers = append(c.peers, p)
			}
		}
	}
	if len(c.peers) == 0 {
		return fmt.Errorf("vassal %q has no device in the router now; is it running?", c.query.Vassal)
	}
	for _, p := range c.peers {
		p.setTaps(append(p.tapList(), c))
	}
	r.captures = append(r.captures, c)
	gone := make(chan struct{})
	r.closers.Go(func() { // ends when either end is closed
		defer close(gone)
		var b [1]byte
		_, _ = c.conn.Read(b[:]) // nobody sends anything
	})
	r.closers.Go(func() {
		c.write(gone)
		_ = c.conn.Close()
		<-gone
		r.shards[0].mail.post(func() { r.detach(c) })
	})
	return nil
}

// detach is called on the first shard.
func (r *Router) detach(c *lookout) {
	for _, p := range c.peers {
		p.setTaps(slices.DeleteFunc(p.tapList(), func(other *lookout) bool { return other == c }))
	}
	r.captures = slices.DeleteFunc(r.captures, func(other *lookout) bool { return other == c })
}

func (p *peer) tapList() []*lookout {
	if taps := p.taps.Load(); taps != nil {
		return slices.Clone(*taps)
	}
	return nil
}

func (p *peer) setTaps(list []*lookout) {
	if len(list) == 0 {
		p.taps.Store(nil)
		return
	}
	p.taps.Store(&list)
}

// endCaptures is for a peer that is gone.
func (p *peer) endCaptures() {
	for _, c := range p.tapList() {
		_ = c.conn.Close()
	}
}

// write writes what waits until the connection ends.
func (c *lookout) write(gone <-chan struct{}) {
	var b []byte
	told := uint64(0)
	for {
		select {
		case <-c.wake:
		case <-gone:
			return
		}
		c.mu.Lock()
		b, c.buf = c.buf, b[:0]
		lost := c.lost
		c.mu.Unlock()
		if lost != told {
			told, b = lost, appendRecord(b, &Captured{Lost: lost}, nil)
		}
		if len(b) == 0 {
			continue
		}
		if _, err := c.conn.Write(b); err != nil {
			return
		}
	}
}

// watched reports whether anybody looks at packets of either end.
func watched(p, to *peer) bool {
	return p != nil && p.taps.Load() != nil || to != nil && to.taps.Load() != nil
}

// capture hands a packet to who looks at its ends: p sent it, to is whom it
// reached or whose half dropped it; nil: none.
//
//go:noinline
func (s *shard) capture(p, to *peer, pk *packet, v verdict) {
	for dir, end := range [2]*peer{firewall.Out: p, firewall.In: to} {
		if end == nil {
			continue
		}
		for _, c := range end.tapList() {
			if c.query.wants(pk) {
				c.add(&Captured{
					Time: time.Now(), Direction: firewall.Direction(dir), Length: len(pk.raw), Verdict: verdictText(end, to, v),
				}, pk.raw)
			}
		}
	}
}

// verdictText says what was decided, as end may know: not the lines of the other
// end's own rules.
func verdictText(end, to *peer, v verdict) string {
	word := firewall.Deny.String()
	switch {
	case v.why == pass:
		return firewall.Allow.String()
	case v.why != DropRule:
		return v.why.String()
	case v.how == rejected:
		word = firewall.Reject.String()
	}
	if v.rule == nil {
		return word
	}
	if to != nil && to != end {
		rules := to.own.Load().of(firewall.In).Rules()
		for i := range rules {
			if v.rule == &rules[i] {
				return word + ", a rule of the other vassal"
			}
		}
	}
	return word + " " + v.rule.File + ":" + strconv.Itoa(v.rule.Line)
}

func (c *lookout) add(head *Captured, data []byte) {
	if c.query.Snap > 0 && len(data) > c.query.Snap {
		data = data[:c.query.Snap]
	}
	c.mu.Lock()
	if len(c.buf)+len(data)+recordLimit > captureRoom {
		c.lost++
	} else {
		c.buf = appendRecord(c.buf, head, data)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
