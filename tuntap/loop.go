package tuntap

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// hostReady reads packets from the host's device.
func (n *network) hostReady(uint32) {
	n.shard.drainHost(n)
	n.shard.endDrain()
}

func (s *shard) drainHost(n *network) {
	if n.host.mask == 0 { // not serving: only an error can have come
		n.loseHost(unix.EBADFD)
		return
	}
	s.merged = 0
	for range burst {
		size, errno := rawRead(n.host.fd, s.buf[room-vnetLen:])
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.emptied(n.host)
			return
		case errno != 0 || size < vnetLen:
			n.loseHost(errno)
			return
		}
		s.moved++
		s.fromHost(n, s.buf[:room-vnetLen+size])
	}
	n.host.merged += s.merged
}

// loseHost stops reading the host's device. The router lives on: its other
// networks, and vassal to vassal in this one, need no host.
func (n *network) loseHost(err error) {
	n.hostGone.Store(true)
	n.shard.poll.remove(n.host)
	n.r.say(slog.LevelError, "the network's device is gone", slog.String("network", n.name), slog.Any("err", err))
}

// deviceReady reads packets from a handed-over device.
func (p *peer) deviceReady(uint32) {
	p.shard.drainPeer(p)
	p.shard.endDrain()
}

func (s *shard) drainPeer(p *peer) {
	if p.dev.mask == 0 {
		s.losePeer(p, errDeviceGone)
		return
	}
	s.merged = 0
	for range burst {
		size, errno := rawRead(p.dev.fd, s.buf[room-vnetLen:])
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			s.emptied(p.dev)
			return
		case errno != 0 || size < vnetLen:
			s.losePeer(p, errDeviceGone)
			return
		}
		s.moved++
		s.fromPeer(p, s.buf[:room-vnetLen+size])
		if p.gone.Load() {
			return
		}
	}
	p.dev.merged += s.merged
}

// losePeer stops reading a device that is of no use any more.
func (s *shard) losePeer(p *peer, why error) {
	s.poll.remove(p.dev)
	s.tell(s.r.shards[0], func() { s.r.closePeer(p, why) })
}

// fromPeer takes a packet from p all its way. framed has room before the packet,
// and the device's header at its end.
func (s *shard) fromPeer(p *peer, framed []byte) {
	n, pk := p.net, &s.pk
	pol := n.policy.Load()
	why := pk.read(framed)
	p.tx.add(pk.onWire())
	if why != pass {
		if watched(p, nil) {
			s.capture(p, nil, pk, drop(why))
		}
		s.note(n, p, pk, drop(why))
		return
	}
	v, to := n.outward(p, pk, pol, s.now)
	if watched(p, to) {
		s.capture(p, to, pk, v)
	}
	switch {
	case v.why != pass:
		blame := p
		if to != nil {
			blame = to
		}
		s.note(n, blame, pk, v)
		s.reject(n, p, pk, v)
	case v.to != nil:
		s.toGateway(n, p, v.to, framed)
	case to != nil:
		s.deliver(to, framed)
	default:
		if s.coalesce(n.host, n, nil, p, framed) {
			return
		}
		if why := s.toHost(n, framed); why != pass {
			s.note(n, p, pk, drop(why))
		}
	}
}

// fromHost takes a packet from the host all its way.
func (s *shard) fromHost(n *network, framed []byte) {
	pk := &s.pk
	if why := pk.read(framed); why != pass {
		s.note(n, nil, pk, drop(why))
		return
	}
	v, to := n.inward(pk, n.policy.Load(), s.now)
	if watched(nil, to) {
		s.capture(nil, to, pk, v)
	}
	if v.why != pass {
		s.note(n, to, pk, v)
		s.reject(n, nil, pk, v)
		return
	}
	s.deliver(to, framed)
}

// reject answers a dropped packet where its rule says so. to is who sent it,
// nil for the host's side.
func (s *shard) reject(n *network, to *peer, pk *packet, v verdict) {
	if v.how != rejected {
		return
	}
	b := &n.answers
	if to != nil {
		b = &to.answers
	}
	if !b.take(s.now, rejectRate, rejectBurst) {
		return
	}
	size := pk.answer(s.scratch[room:], n.policy.Load().own[family(pk.flow.Src)], v.why)
	switch {
	case size == 0:
	case to != nil:
		s.reply(to, s.scratch[:room+size])
	default:
		s.toHost(n, s.scratch[:room+size])
	}
}

// deliver sends a packet to p, now or with others, and counts what became of it.
func (s *shard) deliver(p *peer, framed []byte) {
	if s.coalesce(p.dev, p.net, p, p, framed) {
		return
	}
	switch why := s.send(p, framed); {
	case why != pass:
		s.note(p.net, p, &s.pk, drop(why))
	case p.dev != nil: // else it is counted when its frames are written
		p.rx.add(s.pk.onWire())
	}
}

// reply sends a packet of the router's own to p, which is not counted.
func (s *shard) reply(p *peer, framed []byte) {
	if p.dev != nil {
		s.send(p, framed)
		return
	}
	if b := s.bundleOf(p); b != nil {
		s.flushBundle(b) // what came first goes first
	}
	putHeader(framed[room-frameHeader:], kindData, len(framed)-room)
	p.stream.write(framed[room-frameHeader:])
}

// endDrain writes what was kept back to go with others.
func (s *shard) endDrain() {
	s.flushBatches()
	s.flushBundles()
}

// send writes a packet to p's device, or keeps it for its stream. It never blocks.
func (s *shard) send(p *peer, framed []byte) Reason {
	if p.dev != nil {
		s.flushFor(p.dev)
		s.poll.expect(p.dev)
		return writePacket(p.dev.fd, framed[room-vnetLen:])
	}
	return s.sendPlain(p, framed)
}

func (s *shard) toHost(n *network, framed []byte) Reason {
	if n.hostGone.Load() {
		return DropNotReady
	}
	s.flushFor(n.host)
	s.poll.expect(n.host)
	return writePacket(n.host.fd, framed[room-vnetLen:])
}

// writePacket writes one packet, with its header, to a device and says why it was not taken.
func writePacket(fd int, packet []byte) Reason {
	for {
		errno := rawWrite(fd, packet)
		switch errno {
		case 0:
			return pass
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EMSGSIZE:
			return DropFull
		case unix.EINVAL:
			return DropMalformed // the kernel's own look at it
		}
		return DropNotReady // EIO: the device is down; EBADFD: it is gone
	}
}
