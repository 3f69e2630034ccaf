package tuntap

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	bundles     = 4 // streams that a shard gathers frames for at a time
	bundleBytes = 64 << 10
)

// bundle gathers the frames for one stream that come of one drain, so that they
// cost one write: a packet of 64 KB alone is 45 of them. A shard has a few; as
// with batches nobody waits for more than waits in front of the router anyway.
type bundle struct {
	buf []byte
	to  *peer // nil: nothing is gathered
}

// gather keeps a packet, which is whole, for p's stream.
func (s *shard) gather(p *peer, framed []byte) Reason {
	payload := len(framed) - room
	if payload > framePayload {
		return DropFull
	}
	frame := framed[room-frameHeader:]
	putHeader(frame, kindData, payload)
	b := s.bundleOf(p)
	if b != nil && len(b.buf)+len(frame) > cap(b.buf) {
		s.flushBundle(b)
	}
	if b == nil {
		b = s.freeBundle()
	}
	if b.to == nil {
		b.to = p
		s.bundled++
	}
	b.buf = append(b.buf, frame...)
	return pass
}

// bundleOf returns what was gathered for p, or nil.
func (s *shard) bundleOf(p *peer) *bundle {
	if s.bundled == 0 {
		return nil
	}
	for i := range s.bundles {
		if s.bundles[i].to == p {
			return &s.bundles[i]
		}
	}
	return nil
}

// freeBundle returns an empty bundle; if need be it writes one, each in its turn.
func (s *shard) freeBundle() *bundle {
	for i := range s.bundles {
		if s.bundles[i].to == nil {
			return &s.bundles[i]
		}
	}
	s.displaced = (s.displaced + 1) % bundles
	b := &s.bundles[s.displaced]
	s.flushBundle(b)
	return b
}

// flushBundles writes what was gathered.
func (s *shard) flushBundles() {
	for i := 0; s.bundled > 0; i++ {
		if b := &s.bundles[i]; b.to != nil {
			s.flushBundle(b)
		}
	}
}

// flushBundle writes what was gathered for one stream, and counts what became of it.
func (s *shard) flushBundle(b *bundle) {
	p := b.to
	taken, why := p.stream.write(b.buf)
	packets, bytes := 0, 0
	for rest := b.buf; len(rest) > 0; {
		size := frameSize(rest)
		if taken >= size {
			packets, bytes = packets+1, bytes+size-frameHeader
			taken -= size
		} else {
			var pk packet
			_ = pk.decode(rest[frameHeader:size]) // for the log line
			s.note(p.net, p, &pk, drop(why))
		}
		rest = rest[size:]
	}
	p.rx.add(packets, bytes)
	b.buf, b.to = b.buf[:0], nil
	s.bundled--
}

// frameSize is the size of the first of our own frames, header included.
func frameSize(frames []byte) int { return frameHeader + int(binary.LittleEndian.Uint16(frames[1:])) }

// write writes frames behind what waits already. It returns how many bytes the
// stream took: whole frames, the first ones; why is why it took no more. Any shard
// may come here.
func (t *stream) write(frames []byte) (taken int, why Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return 0, DropNotReady
	}
	if len(t.out) > 0 {
		for taken < len(frames) && len(t.out)+taken+frameSize(frames[taken:]) <= outLimit {
			taken += frameSize(frames[taken:])
		}
		t.out = append(t.out, frames[:taken]...)
		return taken, DropFull
	}
	n, err := unix.Write(t.conn.fd, frames)
	switch {
	case err == unix.EAGAIN, err == unix.EINTR:
		n = 0
	case err != nil:
		return 0, DropNotReady // its end will be read soon
	}
	if n < len(frames) {
		t.out = append(t.out, frames[n:]...) // a frame that was begun must be finished
		t.conn.home.want(t.conn, t.conn.mask|unix.EPOLLOUT)
	}
	return len(frames), pass
}
