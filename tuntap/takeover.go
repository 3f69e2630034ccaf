package tuntap

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// handing is a hand-over on its way: what came of it so far.
type handing struct {
	doc  []byte
	fd   int
	have bool
	more bool // than one descriptor came
}

// take keeps a descriptor that came.
func (h *handing) take(fd int) {
	if h.have {
		unix.Close(fd)
		h.more = true
		return
	}
	h.fd, h.have = fd, true
}

// drop closes what was not used.
func (h *handing) drop() {
	if h.have {
		unix.Close(h.fd)
	}
	*h = handing{}
}

// takeHandover takes a frame of a hand-over and, after the last one, the
// device. Only the emperor's connections come here.
func (r *Router) takeHandover(p *peer, kind byte, payload []byte) {
	if len(p.hand.doc)+len(payload) > handoverLimit {
		r.refuseHandover(p, fmt.Errorf("hand-over is longer than %d bytes", handoverLimit))
		return
	}
	p.hand.doc = append(p.hand.doc, payload...)
	if kind != kindHand {
		return
	}
	q, err := r.acceptHandover(p)
	if err != nil {
		r.refuseHandover(p, err)
		return
	}
	r.show(q)
	r.attend(q)
	r.answer(q, "")
}

// acceptHandover returns the peer that has the device: an orphan whose it was,
// or the connection's, which becomes a handed-over peer.
func (r *Router) acceptHandover(p *peer) (*peer, error) {
	h, err := p.readHandover()
	if err != nil {
		return nil, err
	}
	if o := r.orphanOf(p, h); o != nil {
		return o, r.inherit(o, p, h)
	}
	return p, r.makeHanded(p, h)
}

// readHandover reads the whole of a hand-over.
func (p *peer) readHandover() (*Handover, error) {
	doc := p.hand.doc
	p.hand.doc = nil
	if !p.hand.have || p.hand.more {
		return nil, errors.New("a hand-over carries exactly one descriptor")
	}
	if len(p.holds.Load().prefixes) > 0 {
		return nil, errors.New("the connection has sent packets already")
	}
	h := new(Handover)
	if err := json.Unmarshal(doc, h); err != nil {
		return nil, fmt.Errorf("read the hand-over: %w", err)
	}
	if h.Vassal == "" {
		return nil, errors.New("a hand-over names its vassal")
	}
	return h, nil
}

// makeHanded makes the connection a handed-over peer.
func (r *Router) makeHanded(p *peer, h *Handover) error {
	fd := p.hand.fd
	cuts, err := r.prepare(fd)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("make the device non-blocking: %w", err)
	}
	own, err := p.net.compile(h.Rules)
	if err != nil {
		return err
	}
	p.own.Store(own)
	p.hand.have = false // the descriptor is the source's from now on
	p.shard = r.idlest()
	p.shard.devices++
	p.dev = p.shard.poll.source(fd, p.deviceReady)
	p.dev.cuts = cuts
	p.handed, p.rules = true, h.Rules
	p.uid, p.gid, p.pid = 0, 0, 0
	p.vassal, p.granted = h.Vassal, len(h.May) > 0
	if !p.granted {
		h.May = p.net.policy.Load().reservations(p.vassal)
	}
	p.net.allow(p, h.May)
	if err := r.watchDevice(p); err != nil {
		return err
	}
	p.publish()
	return p.net.giveBack(p, h.Registered)
}

// idlest returns the shard that reads the fewest devices.
func (r *Router) idlest() *shard {
	return slices.MinFunc(r.shards, func(a, b *shard) int { return a.devices - b.devices })
}

// watchDevice puts a peer's device into its shard's set. Another shard than the
// first can not be waited for: if it fails, the peer is closed.
func (r *Router) watchDevice(p *peer) error {
	s := p.shard
	if s == r.shards[0] {
		return s.poll.add(p.dev, 0)
	}
	s.mail.post(func() {
		if err := s.poll.add(p.dev, 0); err != nil {
			s.losePeer(p, err)
		}
	})
	return nil
}

func (r *Router) refuseHandover(p *peer, err error) {
	r.answer(p, err.Error())
	r.closePeer(p, err)
}

// answer tells the emperor what became of its hand-over. It is the first thing
// on the connection, so it fits into the socket's buffer.
func (r *Router) answer(p *peer, text string) {
	text = text[:min(len(text), framePayload)]
	frame := make([]byte, frameHeader+len(text))
	putHeader(frame, kindAnswer, len(text))
	copy(frame[frameHeader:], text)
	_, _ = unix.Write(p.stream.conn.fd, frame) // an emperor that is gone already is seen at the next read
}
