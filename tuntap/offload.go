package tuntap

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// vnetLen is the length of the header that a device with IFF_VNET_HDR puts
// before each packet: struct virtio_net_hdr (linux/virtio_net.h), in the
// machine's byte order.
const vnetLen = 10

// What the header says: the checksum is still to be made, and what kind of
// packets a large one is to be cut into.
const (
	vnetNeedsChecksum = 1
	vnetWhole         = 0
	vnetTCP4          = 1
	vnetTCP6          = 4
	vnetUDP           = 5
	vnetECN           = 0x80
)

// offload is what the kernel left undone in a packet. It travels with the
// packet from device to device, and is done here only for a peer behind a
// stream, whose frames cannot say it.
type offload struct {
	flags   byte
	kind    byte // vnetWhole, or what to cut it into
	size    int  // payload bytes of a segment
	start   int  // the checksum covers the packet from here
	place   int  // and goes to this offset from start
	headers int  // bytes before the payload that is cut
}

// read decodes a packet from a device: framed has its header at the end of room.
func (p *packet) read(framed []byte) Reason {
	if why := p.decode(framed[room:]); why != pass {
		return why
	}
	return p.readOffload(framed[room-vnetLen : room])
}

// readOffload reads the header of a decoded packet. A header that does not fit
// the packet is malformed: only a vassal that forges packets has such.
func (p *packet) readOffload(h []byte) Reason {
	o := &p.undone
	o.flags, o.kind = h[0], h[1]
	if o.flags|o.kind == 0 {
		return pass
	}
	o.size = int(binary.NativeEndian.Uint16(h[4:]))
	o.start = int(binary.NativeEndian.Uint16(h[6:]))
	o.place = int(binary.NativeEndian.Uint16(h[8:]))
	if o.flags&vnetNeedsChecksum != 0 && o.start+o.place+2 > len(p.raw) {
		return DropMalformed
	}
	if o.kind == vnetWhole {
		return pass
	}
	transport, least, proto := 8, 8, byte(protoUDP)
	switch o.kind &^ vnetECN {
	case vnetTCP4, vnetTCP6:
		if len(p.l4) < 20 {
			return DropMalformed
		}
		transport, least, proto = int(p.l4[12]>>4)*4, 20, protoTCP
	case vnetUDP:
	default:
		return DropMalformed // UFO was not asked for
	}
	if p.flow.Proto != proto || p.part != whole || o.size == 0 || transport < least || transport > len(p.l4) {
		return DropMalformed
	}
	o.headers = len(p.raw) - len(p.l4) + transport
	return pass
}

// onWire says how many packets this one is on a wire, and their bytes.
func (p *packet) onWire() (packets, bytes int) {
	o := &p.undone
	if o.kind == vnetWhole {
		return 1, len(p.raw)
	}
	packets = max(1, (len(p.raw)-o.headers+o.size-1)/o.size)
	return packets, len(p.raw) + (packets-1)*o.headers
}

// finish makes the checksum that the kernel left undone.
func (o *offload) finish(b []byte) {
	if o.flags&vnetNeedsChecksum == 0 {
		return
	}
	at := b[o.start+o.place:]
	// The field holds the sum of the pseudo-header until then.
	s := fold(sum(0, b[o.start:]))
	if s == 0 {
		s = 0xffff // a UDP checksum of zero would mean none (RFC 768)
	}
	binary.BigEndian.PutUint16(at, s)
}

// segment writes the i-th packet that p is cut into, with right lengths and
// checksums, to b and returns its length; 0 after the last one.
func (p *packet) segment(b []byte, i int) int {
	o := &p.undone
	from := o.headers + i*o.size
	if from >= len(p.raw) && i > 0 {
		return 0
	}
	payload := p.raw[from:min(from+o.size, len(p.raw))]
	n := copy(b, p.raw[:o.headers])
	n += copy(b[n:], payload)
	b = b[:n]
	l4 := len(p.raw) - len(p.l4)
	if p.v6 {
		binary.BigEndian.PutUint16(b[4:], uint16(n-40))
	} else {
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(p.raw[4:])+uint16(i))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:l4])))
	}
	last := from+o.size >= len(p.raw)
	p.segmentTransport(b[l4:], i, last)
	return n
}

// segmentTransport sets what differs between the segments of one packet.
func (p *packet) segmentTransport(t []byte, i int, last bool) {
	place := 16
	if p.flow.Proto == protoUDP {
		place = 6
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	} else {
		binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(p.l4[4:])+uint32(i*p.undone.size))
		if !last {
			t[13] &^= tcpFIN | tcpPSH
		}
		if i > 0 {
			t[13] &^= tcpCWR // said once (RFC 3168)
		}
	}
	t[place], t[place+1] = 0, 0
	s := fold(sum(pseudo(p.flow.Src, p.flow.Dst, p.flow.Proto, len(t)), t))
	if s == 0 && place == 6 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(t[place:], s)
}

// What the router asks a device to leave undone: checksums, TCP segmentation
// and, since Linux 6.2, that of UDP (linux/if_tun.h). Only these: with more
// bits, packets can need a longer header.
const (
	offloadsAll = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	offloadsOld = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
)
