package tuntest

import (
	"encoding/binary"
	"net/netip"
)

// TCP flags.
const (
	FIN = 1
	SYN = 2
	RST = 4
	ACK = 16
)

// UDP returns a UDP packet of the addresses' family, with right checksums.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	l4 := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(l4[0:], src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	copy(l4[8:], payload)
	sum := transportSum(src.Addr(), dst.Addr(), 17, l4)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(l4[6:], sum)
	return IP(src.Addr(), dst.Addr(), 17, l4)
}

// TCP returns a TCP segment without options.
func TCP(src, dst netip.AddrPort, flags byte, seq, ack uint32, payload []byte) []byte {
	l4 := make([]byte, 20+len(payload))
	binary.BigEndian.PutUint16(l4[0:], src.Port())
	binary.BigEndian.PutUint16(l4[2:], dst.Port())
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], ack)
	l4[12], l4[13] = 5<<4, flags
	binary.BigEndian.PutUint16(l4[14:], 65535)
	copy(l4[20:], payload)
	binary.BigEndian.PutUint16(l4[16:], transportSum(src.Addr(), dst.Addr(), 6, l4))
	return IP(src.Addr(), dst.Addr(), 6, l4)
}

// ICMP returns an ICMP or, for IPv6 addresses, an ICMPv6 message; rest is what
// follows the checksum, at least four bytes.
func ICMP(src, dst netip.Addr, typ, code byte, rest []byte) []byte {
	l4 := make([]byte, 4+max(4, len(rest)))
	l4[0], l4[1] = typ, code
	copy(l4[4:], rest)
	if src.Is4() {
		binary.BigEndian.PutUint16(l4[2:], Checksum(l4))
		return IP(src, dst, 1, l4)
	}
	binary.BigEndian.PutUint16(l4[2:], transportSum(src, dst, 58, l4))
	return IP(src, dst, 58, l4)
}

// Echo returns a ping of the addresses' family.
func Echo(src, dst netip.Addr, id, seq uint16) []byte {
	rest := binary.BigEndian.AppendUint16(nil, id)
	rest = binary.BigEndian.AppendUint16(rest, seq)
	rest = append(rest, "fiefdom"...)
	if src.Is4() {
		return ICMP(src, dst, 8, 0, rest)
	}
	return ICMP(src, dst, 128, 0, rest)
}

// IP puts an IP header without options before a payload.
func IP(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if !src.Is4() {
		b := make([]byte, 40+len(payload))
		b[0], b[6], b[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		s, d := src.As16(), dst.As16()
		copy(b[8:], s[:])
		copy(b[24:], d[:])
		copy(b[40:], payload)
		return b
	}
	b := make([]byte, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	s, d := src.As4(), dst.As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	copy(b[20:], payload)
	FixIPv4(b)
	return b
}

// FixIPv4 puts the right checksum into an IPv4 header that was changed.
func FixIPv4(b []byte) {
	head := b[:int(b[0]&15)*4]
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], Checksum(head))
}

// Fragment returns the part of a whole packet (without options or extension
// headers) that holds the bytes [start, end) of its payload. start is a
// multiple of eight; the last part has no more to follow.
func Fragment(packet []byte, id uint32, start, end int) []byte {
	if packet[0]>>4 == 4 {
		payload := packet[20:]
		b := append(append([]byte(nil), packet[:20]...), payload[start:end]...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], uint16(id))
		off := uint16(start / 8)
		if end < len(payload) {
			off |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], off)
		FixIPv4(b)
		return b
	}
	payload := packet[40:]
	ext := make([]byte, 8, 8+end-start)
	ext[0] = packet[6]
	off := uint16(start)
	if end < len(payload) {
		off |= 1
	}
	binary.BigEndian.PutUint16(ext[2:], off)
	binary.BigEndian.PutUint32(ext[4:], id)
	b := append(append([]byte(nil), packet[:40]...), append(ext, payload[start:end]...)...)
	b[6] = 44
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

// Checksum returns the internet checksum of b (RFC 1071); 0 for what holds a
// right one already.
func Checksum(b []byte) uint16 { return ^add(0, b) }

// TransportChecksum returns the checksum of a whole packet's transport part
// with its pseudo-header; 0 if the one within is right.
func TransportChecksum(packet []byte) uint16 {
	if packet[0]>>4 == 4 {
		head := int(packet[0]&15) * 4
		src, _ := netip.AddrFromSlice(packet[12:16])
		dst, _ := netip.AddrFromSlice(packet[16:20])
		return transportSum(src, dst, packet[9], packet[head:])
	}
	src, _ := netip.AddrFromSlice(packet[8:24])
	dst, _ := netip.AddrFromSlice(packet[24:40])
	return transportSum(src, dst, packet[6], packet[40:])
}

func transportSum(src, dst netip.Addr, proto byte, l4 []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(l4)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	return ^add(add(0, pseudo), l4)
}

func add(sum uint16, b []byte) uint16 {
	s := uint32(sum)
	for i, c := range b {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
