package tuntap

import (
	"encoding/binary"
	"net/netip"

	"fiefdom/firewall"
)

// IP protocol numbers and IPv6 extension headers (IANA).
const (
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoICMP6    = 58
	protoSCTP     = 132
	protoUDPLite  = 136
	extHopByHop   = 0
	extRouting    = 43
	extFragment   = 44
	extAuth       = 51
	extDest       = 60
	extMobility   = 135
	extHIP        = 139
	extShim6      = 140
	maxExtHeaders = 8
)

// fragment says which part of a datagram a packet is.
type fragment uint8

const (
	whole fragment = iota
	firstPart
	laterPart
)

// packet is a decoded packet. It is reused: nothing in it outlives the next
// decode, and decode allocates nothing.
type packet struct {
	raw  []byte // the packet
	flow firewall.Flow
	v6   bool

	part      fragment
	fragID    uint32
	fragStart int // of this part, in bytes of the datagram's payload
	fragEnd   int
	more      bool // parts follow

	l4     []byte  // from the transport header; nil in a later part
	undone offload // read separately: frames have none

	trace *trace // of a packet that Explain made up; nil for all others
}

// decode reads b, which must hold exactly one packet. It returns pass,
// DropMalformed, or DropFragment for a first part too short to be judged.
func (p *packet) decode(b []byte) Reason {
	*p = packet{raw: b}
	if len(b) < 20 {
		return DropMalformed
	}
	switch b[0] >> 4 {
	case 4:
		return p.decode4(b)
	case 6:
		return p.decode6(b)
	}
	return DropMalformed
}

func (p *packet) decode4(b []byte) Reason {
	head := int(b[0]&15) * 4
	if head < 20 || head > len(b) || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return DropMalformed
	}
	if head > 20 && sourceRouted(b[20:head]) {
		return DropMalformed
	}
	p.flow.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.flow.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	p.flow.Proto = b[9]
	frag := binary.BigEndian.Uint16(b[6:])
	p.fragID = uint32(binary.BigEndian.Uint16(b[4:]))
	if why := p.setPart(int(frag&0x1fff)*8, len(b)-head, frag&0x2000 != 0); why != pass {
		return why
	}
	return p.decodeTransport(b[head:])
}

// sourceRouted reports whether IPv4 options send the packet elsewhere than its
// destination says (RFC 791, LSRR and SSRR), or are broken.
func sourceRouted(options []byte) bool {
	for len(options) > 0 {
		switch options[0] {
		case 0: // end of options
			return false
		case 1: // no operation
			options = options[1:]
			continue
		case 131, 137:
			return true
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return true
		}
		options = options[options[1]:]
	}
	return false
}

func (p *packet) decode6(b []byte) Reason {
	p.v6 = true
	if len(b) < 40 || int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
		return DropMalformed
	}
	p.flow.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.flow.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	next, rest := b[6], b[40:]
	fragmented := false
	for range maxExtHeaders {
		length := 0
		switch next {
		case extHopByHop, extDest, extMobility, extHIP, extShim6:
			length = extLength(rest, 8)
		case extRouting:
			length = extLength(rest, 8)
			// Type 0 is deprecated (RFC 5095); any other with segments left would go elsewhere than judged.
			if length > 0 && (rest[2] == 0 || rest[3] != 0) {
				return DropMalformed
			}
		case extAuth:
			length = extLength(rest, 4)
		case extFragment:
			if fragmented || len(rest) < 8 {
				return DropMalformed
			}
			fragmented, length = true, 8
			off := binary.BigEndian.Uint16(rest[2:])
			p.fragID = binary.BigEndian.Uint32(rest[4:])
			if why := p.setPart(int(off&^7), len(rest)-8, off&1 != 0); why != pass {
				return why
			}
			if p.part == laterPart {
				p.flow.Proto = rest[0]
				return pass
			}
		default:
			p.flow.Proto = next
			return p.decodeTransport(rest)
		}
		if length == 0 {
			return p.tooShort()
		}
		next, rest = rest[0], rest[length:]
	}
	return DropMalformed
}

// extLength returns the length of the extension header that b begins with,
// which counts in units (RFC 8200, RFC 4302); 0 when b is shorter.
func extLength(b []byte, unit int) int {
	if len(b) < 8 {
		return 0
	}
	n := 8 + int(b[1])*unit
	if n > len(b) {
		return 0
	}
	return n
}

// setPart notes which part of a datagram this is. A fragment that is the whole
// datagram (RFC 6946, atomic) counts as whole.
func (p *packet) setPart(start, length int, more bool) Reason {
	p.fragStart, p.fragEnd, p.more = start, start+length, more
	switch {
	case start == 0 && !more:
		p.part = whole
	case start == 0:
		p.part = firstPart
	default:
		p.part = laterPart
	}
	if p.fragEnd > 0xffff || p.part != whole && length == 0 {
		return DropMalformed
	}
	if more && length%8 != 0 {
		return DropMalformed
	}
	return pass
}

// decodeTransport reads the ports. A packet that could not be judged is not
// let through: it must hold the whole transport header.
func (p *packet) decodeTransport(b []byte) Reason {
	if p.part == laterPart {
		return pass
	}
	least, ports := 0, false
	switch p.flow.Proto {
	case protoTCP:
		least, ports = 20, true
	case protoUDP, protoUDPLite:
		least, ports = 8, true
	case protoSCTP, protoDCCP:
		least, ports = 12, true
	case protoICMP:
		least = 8
	case protoICMP6:
		least = 4
	}
	if len(b) < least {
		return p.tooShort()
	}
	if ports {
		p.flow.HasPorts = true
		p.flow.SrcPort = binary.BigEndian.Uint16(b)
		p.flow.DstPort = binary.BigEndian.Uint16(b[2:])
	}
	p.l4 = b
	return pass
}

func (p *packet) tooShort() Reason {
	if p.part == firstPart {
		return DropFragment
	}
	return DropMalformed
}

// icmpType returns the type of an ICMP message of the packet's family.
func (p *packet) icmpType() (byte, bool) {
	want := byte(protoICMP)
	if p.v6 {
		want = protoICMP6
	}
	if p.flow.Proto != want || len(p.l4) == 0 {
		return 0, false
	}
	return p.l4[0], true
}

// TCP flags, byte 13 of the header.
const (
	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpPSH = 8
	tcpACK = 16
	tcpCWR = 128
)

// family returns 0 for IPv4 and 1 for IPv6: an index.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
