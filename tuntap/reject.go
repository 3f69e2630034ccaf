package tuntap

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

const (
	rejectRate  = 50  // answers a second, for each peer and for each network's host side
	rejectBurst = 100 // at once
	quote4      = 28  // bytes that an ICMP error quotes after its header: IP and eight more (RFC 792)
	quote6      = 1192
)

// answer writes the answer to a dropped packet into b and returns its length,
// 0 when it gets none. What a rule rejects gets a TCP reset, else ICMP
// "administratively prohibited"; what is for an address that nobody has gets
// ICMP "host unreachable" (RFC 1812, RFC 4443), from the router's own address.
func (p *packet) answer(b []byte, own netip.Addr, why Reason) int {
	dst := p.flow.Dst
	if p.part == laterPart || dst.IsMulticast() || dst == broadcast4 {
		return 0
	}
	if !own.IsValid() {
		own = dst
	}
	if typ, ok := p.icmpType(); ok {
		if p.v6 && typ < icmp6Echo || !p.v6 && typ != icmpEcho {
			return 0 // never an error about an error
		}
	}
	if p.flow.Proto == protoTCP && len(p.l4) >= 20 {
		if p.l4[13]&tcpRST != 0 {
			return 0
		}
		if why != DropNoRoute {
			return p.answerReset(b)
		}
	}
	code4, code6 := byte(13), byte(1)
	if why == DropNoRoute {
		code4, code6 = 1, 3
	}
	if p.v6 {
		return p.answer6(b, own, code6)
	}
	return p.answer4(b, own, code4)
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (p *packet) answer4(b []byte, own netip.Addr, code byte) int {
	quoted := p.raw[:min(len(p.raw), quote4+int(p.raw[0]&15)*4-20)]
	icmp := b[20 : 28+len(quoted)]
	clear(icmp[:8])
	icmp[0], icmp[1] = icmpUnreachable, code
	copy(icmp[8:], quoted)
	binary.BigEndian.PutUint16(icmp[2:], fold(sum(0, icmp)))
	return putIPv4(b, own, p.flow.Src, protoICMP, len(icmp))
}

func (p *packet) answer6(b []byte, own netip.Addr, code byte) int {
	quoted := p.raw[:min(len(p.raw), quote6)]
	icmp := b[40 : 48+len(quoted)]
	clear(icmp[:8])
	icmp[0], icmp[1] = icmp6Unreachable, code
	copy(icmp[8:], quoted)
	binary.BigEndian.PutUint16(icmp[2:], fold(sum(pseudo(own, p.flow.Src, protoICMP6, len(icmp)), icmp)))
	return putIPv6(b, own, p.flow.Src, protoICMP6, len(icmp))
}

// answerReset resets the connection as RFC 9293, 3.5.2 says.
func (p *packet) answerReset(b []byte) int {
	head := 20
	if p.v6 {
		head = 40
	}
	tcp := b[head : head+20]
	clear(tcp)
	copy(tcp[0:2], p.l4[2:4])
	copy(tcp[2:4], p.l4[0:2])
	flags := p.l4[13]
	if flags&tcpACK != 0 {
		copy(tcp[4:8], p.l4[8:12])
		tcp[13] = tcpRST
	} else {
		end := binary.BigEndian.Uint32(p.l4[4:]) + uint32(max(0, len(p.l4)-int(p.l4[12]>>4)*4))
		if flags&tcpSYN != 0 {
			end++
		}
		if flags&tcpFIN != 0 {
			end++
		}
		binary.BigEndian.PutUint32(tcp[8:], end)
		tcp[13] = tcpRST | tcpACK
	}
	tcp[12] = 5 << 4
	src, dst := p.flow.Dst, p.flow.Src
	binary.BigEndian.PutUint16(tcp[16:], fold(sum(pseudo(src, dst, protoTCP, 20), tcp)))
	if p.v6 {
		return putIPv6(b, src, dst, protoTCP, 20)
	}
	return putIPv4(b, src, dst, protoTCP, 20)
}

func putIPv4(b []byte, src, dst netip.Addr, proto byte, payload int) int {
	clear(b[:20])
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+payload))
	s, d := src.As4(), dst.As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:20])))
	return 20 + payload
}

func putIPv6(b []byte, src, dst netip.Addr, proto byte, payload int) int {
	clear(b[:40])
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(payload))
	s, d := src.As16(), dst.As16()
	copy(b[8:], s[:])
	copy(b[24:], d[:])
	return 40 + payload
}

// sum adds b to a one's complement sum (RFC 1071): eight bytes at a time, and
// every carry again at the low end, which is the same sum.
func sum(s uint32, b []byte) uint32 {
	wide, carry := uint64(s), uint64(0)
	for ; len(b) >= 32; b = b[32:] {
		wide, carry = bits.Add64(wide, binary.BigEndian.Uint64(b), carry)
		wide, carry = bits.Add64(wide, binary.BigEndian.Uint64(b[8:]), carry)
		wide, carry = bits.Add64(wide, binary.BigEndian.Uint64(b[16:]), carry)
		wide, carry = bits.Add64(wide, binary.BigEndian.Uint64(b[24:]), carry)
	}
	for ; len(b) >= 8; b = b[8:] {
		wide, carry = bits.Add64(wide, binary.BigEndian.Uint64(b), carry)
	}
	wide, carry = bits.Add64(wide, 0, carry)
	wide += carry
	for wide > 0xffff_ffff {
		wide = wide>>32 + wide&0xffff_ffff
	}
	s = uint32(wide>>16 + wide&0xffff)
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// pseudo is the sum of the pseudo-header of either family (RFC 9293, RFC 8200).
func pseudo(src, dst netip.Addr, proto byte, length int) uint32 {
	s := uint32(proto) + uint32(length)
	if src.Is4() {
		a, b := src.As4(), dst.As4()
		return sum(sum(s, a[:]), b[:])
	}
	a, b := src.As16(), dst.As16()
	return sum(sum(s, a[:]), b[:])
}
