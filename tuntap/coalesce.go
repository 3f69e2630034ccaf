package tuntap

import "encoding/binary"

// Bounds of what datagrams are merged into.
const (
	batchSegments = 64    // UDP_MAX_SEGMENTS (linux/udp.h) of kernels before 6.9; later ones take 128
	batchBytes    = 65000 // of the IP packet, which can have 65535
	udpHeader     = 8
	udpChecksum   = 6 // offset of the checksum
)

// batches is how many devices can have an open batch of a shard at a time: more than one,
// because programs that answer several others do so in turn.
const batches = 4

// batch gathers small UDP datagrams of one flow for one device. They are written
// as one large packet, which the receiver's kernel (or its network card) cuts
// again: a write costs nearly as much for one datagram as for 64.
//
// A batch is open only while one device is drained, so nobody waits for more
// than the packets that wait in front of the router anyway. Whatever else goes to
// the same device is written behind it: order is kept for each device, and so a
// device has one batch of a shard at most.
//
// What is cut is equal to what was sent but for the ids of IPv4 packets: cutting
// counts them up from the first one's. Datagrams that may be fragmented on their
// way (no DF) need ids that nobody else uses, so they are merged only if theirs
// count up as well. With DF the id means nothing (RFC 6864), and it may change.
type batch struct {
	buf   []byte  // with room; the first datagram as it came, then the payloads of the others
	dev   *source // where it goes; nil: nothing waits
	net   *network
	to    *peer // whose device it is; nil: the host's
	blame *peer // whose drop it is if it can not be written
	head  int   // bytes of the IP and UDP headers
	size  int   // payload of each datagram; only the last may be shorter
	count int
}

// coalesce keeps the packet that was read last for dev's batch and reports
// whether it did. If not, the caller writes it. to and blame are as in batch.
func (s *shard) coalesce(dev *source, n *network, to, blame *peer, framed []byte) bool {
	pk := &s.pk
	if dev == nil || !dev.cuts || !pk.mergeable() {
		return false // a stream, an old kernel, or no such datagram
	}
	s.merged++
	if b := s.batchOf(dev); b != nil && b.takes(pk) {
		last := len(pk.raw)-b.head < b.size
		b.buf = append(b.buf, pk.raw[b.head:]...) // within its capacity: see takes
		b.count++
		if last || b.count == batchSegments {
			s.flushBatch(b)
		}
		return true
	}
	s.flushFor(dev)
	head := len(pk.raw) - len(pk.l4) + udpHeader
	size := len(pk.raw) - head
	if head+2*size > batchBytes {
		return false // no other fits
	}
	b := s.freeBatch()
	*b = batch{
		buf: append(b.buf[:room-vnetLen], framed[room-vnetLen:]...),
		dev: dev, net: n, to: to, blame: blame, head: head, size: size, count: 1,
	}
	s.open++
	return true
}

// freeBatch returns an empty batch; if need be it writes one, each in its turn.
func (s *shard) freeBatch() *batch {
	for i := range s.batches {
		if s.batches[i].dev == nil {
			return &s.batches[i]
		}
	}
	s.evict = (s.evict + 1) % batches
	b := &s.batches[s.evict]
	s.flushBatch(b)
	return b
}

// mergeable reports whether p is a datagram that a kernel cuts from a larger one
// just as it is: its checksum is left to others, and its headers are plain.
// What a forger got wrong (lengths, the header's checksum) would be put right by
// cutting, so it is not merged.
func (p *packet) mergeable() bool {
	o := &p.undone
	if o.flags != vnetNeedsChecksum || o.kind != vnetWhole || p.flow.Proto != protoUDP || p.part != whole {
		return false
	}
	ip := len(p.raw) - len(p.l4)
	switch {
	case len(p.l4) == udpHeader, int(binary.BigEndian.Uint16(p.l4[4:])) != len(p.l4):
		return false
	case o.start != ip || o.place != udpChecksum:
		return false
	case p.v6:
		return ip == 40 // no extension headers
	}
	return ip == 20 && rightHeader((*[20]byte)(p.raw))
}

// rightHeader reports whether an IPv4 header without options has its checksum
// right. It is done for each datagram, so it adds more than sum does at a time.
func rightHeader(b *[20]byte) bool {
	s := uint64(binary.BigEndian.Uint32(b[0:])) + uint64(binary.BigEndian.Uint32(b[4:])) + uint64(binary.BigEndian.Uint32(b[8:])) +
		uint64(binary.BigEndian.Uint32(b[12:])) + uint64(binary.BigEndian.Uint32(b[16:]))
	return fold(uint32(s>>32)+uint32(s>>16&0xffff)+uint32(s&0xffff)) == 0
}

// takes reports whether a mergeable datagram can follow those in the batch.
func (b *batch) takes(p *packet) bool {
	first, next := b.buf[room:], p.raw
	ip := len(next) - len(p.l4)
	size := len(p.l4) - udpHeader
	if ip+udpHeader != b.head || size > b.size || len(first)+size > batchBytes {
		return false
	}
	if p.v6 {
		// All but the length: traffic class, flow label, hop limit, addresses.
		if [4]byte(first) != [4]byte(next) || [34]byte(first[6:]) != [34]byte(next[6:]) {
			return false
		}
	} else {
		// All but the length, the id and the checksum: TOS, fragment bits, TTL, addresses.
		if [2]byte(first) != [2]byte(next) || [4]byte(first[6:]) != [4]byte(next[6:]) || [8]byte(first[12:]) != [8]byte(next[12:]) {
			return false
		}
		const dontFragment = 0x40
		id := binary.BigEndian.Uint16(first[4:]) + uint16(b.count)
		if next[6]&dontFragment == 0 && binary.BigEndian.Uint16(next[4:]) != id {
			return false
		}
	}
	u, v := first[ip:], p.l4
	return [4]byte(u) == [4]byte(v) &&
		resum(binary.BigEndian.Uint16(u[udpChecksum:]), udpHeader+b.size, len(v)) == binary.BigEndian.Uint16(v[udpChecksum:])
}

// resum returns a pseudo-header's sum for another length.
func resum(pseudo uint16, before, after int) uint16 {
	return ^fold(uint32(pseudo) + uint32(^uint16(before)) + uint32(after))
}

// batchOf returns what waits for dev, or nil.
func (s *shard) batchOf(dev *source) *batch {
	if s.open == 0 {
		return nil
	}
	for i := range s.batches {
		if s.batches[i].dev == dev {
			return &s.batches[i]
		}
	}
	return nil
}

// flushFor lets nothing overtake what waits for dev.
func (s *shard) flushFor(dev *source) {
	if b := s.batchOf(dev); b != nil {
		s.flushBatch(b)
	}
}

// flushBatches writes what was merged.
func (s *shard) flushBatches() {
	for i := 0; s.open > 0; i++ {
		if b := &s.batches[i]; b.dev != nil {
			s.flushBatch(b)
		}
	}
}

// flushBatch writes what waits and counts what became of it.
func (s *shard) flushBatch(b *batch) {
	b.dev = nil
	s.open--
	b.seal()
	var why Reason
	switch {
	case b.to == nil:
		why = s.toHost(b.net, b.buf)
	case b.to.gone.Load(): // its device is closed, or about to be
		why = DropNotReady
	default:
		why = s.send(b.to, b.buf)
	}
	switch {
	case why != pass:
		s.lose(b, why)
	case b.to != nil:
		b.to.rx.add(b.count, len(b.buf)-room+(b.count-1)*b.head)
	}
	b.net, b.to, b.blame = nil, nil, nil
}

// seal makes one packet of the datagrams: its headers and the device's.
func (b *batch) seal() {
	if b.count == 1 {
		return
	}
	h, packet := b.buf[room-vnetLen:room], b.buf[room:]
	h[1] = vnetUDP
	binary.NativeEndian.PutUint16(h[2:], uint16(b.head))
	binary.NativeEndian.PutUint16(h[4:], uint16(b.size))
	ip := b.head - udpHeader
	if ip == 40 {
		binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-ip))
	} else {
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
		packet[10], packet[11] = 0, 0
		binary.BigEndian.PutUint16(packet[10:], fold(sum(0, packet[:ip])))
	}
	u := packet[ip:]
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	binary.BigEndian.PutUint16(u[udpChecksum:], resum(binary.BigEndian.Uint16(u[udpChecksum:]), udpHeader+b.size, len(u)))
}

// lose counts each datagram of a batch that was not taken.
func (s *shard) lose(b *batch, why Reason) {
	var pk packet
	_ = pk.decode(b.buf[room:]) // for the log line
	for range b.count {
		s.note(b.net, b.blame, &pk, drop(why))
	}
}
