package tuntap

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"fiefdom/tuntap/tuntest"
)

// undone is a packet as a vassal's kernel hands it out, with the device's header.
type undone struct {
	header, packet []byte
}

func (u undone) framed() []byte { return append(append([]byte(nil), u.header...), u.packet...) }

// partial is a datagram whose checksum is left to others.
func partial(src, dst netip.AddrPort, payload []byte) undone {
	u := undone{make([]byte, vnetLen), tuntest.UDP(src, dst, payload)}
	l4 := 20
	if src.Addr().Is6() {
		l4 = 40
	}
	undo(u.packet, l4, udpChecksum)
	u.header[0] = vnetNeedsChecksum
	binary.NativeEndian.PutUint16(u.header[6:], uint16(l4))
	binary.NativeEndian.PutUint16(u.header[8:], udpChecksum)
	return u
}

// plainly is the reference: the packets that a kernel without any offloads would
// make of this one. It is written after __udp_gso_segment, and shares no code with
// the router.
func (u undone) plainly() [][]byte {
	b := append([]byte(nil), u.packet...)
	if u.header[0]&vnetNeedsChecksum == 0 {
		return [][]byte{b}
	}
	start := int(binary.NativeEndian.Uint16(u.header[6:]))
	place := start + int(binary.NativeEndian.Uint16(u.header[8:]))
	if u.header[1] == vnetWhole {
		return [][]byte{finished(b, start, place)}
	}
	size, head := int(binary.NativeEndian.Uint16(u.header[4:])), start+udpHeader
	length := len(b) - start
	var cut [][]byte
	for i, rest := 0, b[head:]; len(rest) > 0; i++ {
		n := min(size, len(rest))
		c := append(append([]byte(nil), b[:head]...), rest[:n]...)
		rest = rest[n:]
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(c[2:], uint16(len(c)))
			binary.BigEndian.PutUint16(c[4:], binary.BigEndian.Uint16(b[4:])+uint16(i))
			tuntest.FixIPv4(c)
		} else {
			binary.BigEndian.PutUint16(c[4:], uint16(len(c)-40))
		}
		binary.BigEndian.PutUint16(c[start+4:], uint16(udpHeader+n))
		// The partial sum is corrected for the length, not made anew.
		sum := (int(binary.BigEndian.Uint16(c[place:])) - length + udpHeader + n + 2*0xffff) % 0xffff
		binary.BigEndian.PutUint16(c[place:], uint16(sum))
		cut = append(cut, finished(c, start, place))
	}
	return cut
}

func finished(b []byte, start, place int) []byte {
	sum := tuntest.Checksum(b[start:])
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[place:], sum)
	return b
}

// modulo takes away what may differ: the id of a datagram that is never
// fragmented, and with it the header's checksum where that is right.
func modulo(b []byte) string {
	if b[0]>>4 == 4 && b[6]&0x40 != 0 && b[9] == protoUDP && len(b) >= 20 && tuntest.Checksum(b[:int(b[0]&15)*4]) == 0 {
		b = append([]byte(nil), b...)
		clear(b[4:6])
		clear(b[10:12])
	}
	return string(b)
}

// valid says what Linux has against a large datagram (virtio_net_hdr_to_skb).
func (u undone) valid(p *packet) error {
	if u.header[1] != vnetUDP {
		return nil
	}
	head, size := len(p.raw)-len(p.l4)+udpHeader, p.undone.size
	switch {
	case len(u.packet) > batchBytes || len(u.packet)-head > size*batchSegments || len(u.packet)-head <= size:
		return fmt.Errorf("%d bytes in segments of %d", len(u.packet), size)
	case u.header[0] != vnetNeedsChecksum || p.undone.start != head-udpHeader || p.undone.place != udpChecksum:
		return fmt.Errorf("the checksum is not left to the kernel: % x", u.header)
	case int(binary.NativeEndian.Uint16(u.header[2:])) != head:
		return fmt.Errorf("header of %d bytes said to have % x", head, u.header[2:4])
	case int(binary.BigEndian.Uint16(p.l4[4:])) != len(p.l4):
		return fmt.Errorf("wrong length")
	}
	return nil
}
