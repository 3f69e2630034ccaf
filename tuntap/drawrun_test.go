package tuntap

import (
	"encoding/binary"
	"net/netip"

	"pgregory.net/rapid"

	"fiefdom/tuntap/tuntest"
)

// More vassals, so that there are more devices than batches.
var (
	others  = []netip.Addr{netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("10.9.0.10"), netip.MustParseAddr("10.9.0.11")}
	others6 = []netip.Addr{netip.MustParseAddr("fd09::9"), netip.MustParseAddr("fd09::a"), netip.MustParseAddr("fd09::b")}
	far6    = netip.MustParseAddr("2001:db8::7")
	turned  = netip.MustParseAddr("100.7.198.51") // internet, but its halves have changed places: sums are equal
)

// drawRun is some packets in a row that are alike, as programs send them.
func drawRun(t *rapid.T) []undone {
	six := rapid.IntRange(0, 2).Draw(t, "family") == 0
	src, dsts := blog, append([]netip.Addr{shop, shop, internet, turned}, others...)
	if six {
		src, dsts = blog6, append([]netip.Addr{shop6, shop6, far6}, others6...)
	}
	from := netip.AddrPortFrom(src, uint16(rapid.IntRange(4000, 4001).Draw(t, "source port")))
	to := netip.AddrPortFrom(rapid.SampledFrom(dsts).Draw(t, "to"), uint16(rapid.IntRange(53, 54).Draw(t, "port")))
	size := rapid.SampledFrom([]int{0, 1, 2, 64, 64, 1000, 1472, 20000}).Draw(t, "size")
	id := uint16(rapid.SampledFrom([]int{0, 7, 0xfffe}).Draw(t, "id"))
	idStep := uint16(rapid.SampledFrom([]int{1, 1, 0, 3}).Draw(t, "id step"))
	bits := rapid.SampledFrom([]byte{0, 0x40, 0x40, 0x80}).Draw(t, "DF")
	odd := rapid.IntRange(0, 24).Draw(t, "odd")
	all := rapid.Bool().Draw(t, "all odd")
	count := rapid.SampledFrom([]int{1, 2, 5, 63, 64, 65, 130}).Draw(t, "count")
	if size > 2000 {
		count = min(count, 5)
	}
	seed := rapid.Byte().Draw(t, "seed")
	var run []undone
	for i := range count {
		n := size
		if i > 0 && rapid.IntRange(0, 40).Draw(t, "length") == 0 {
			n = rapid.IntRange(0, size+1).Draw(t, "other size")
		}
		payload := make([]byte, n)
		for k := range payload {
			payload[k] = seed + byte(i) + byte(k)*7
		}
		u := partial(from, to, payload)
		if !six {
			binary.BigEndian.PutUint16(u.packet[4:], id)
			id += idStep
			u.packet[6] = bits
			tuntest.FixIPv4(u.packet)
		}
		if odd <= 12 && (all || rapid.IntRange(0, 9).Draw(t, "odd one") == 0) {
			u = u.twist(odd, from, to, payload)
		}
		run = append(run, u)
	}
	return run
}

// twist makes a packet one that must not be merged with its neighbours.
func (u undone) twist(how int, from, to netip.AddrPort, payload []byte) undone {
	b, four := u.packet, u.packet[0]>>4 == 4
	ip := 40
	if four {
		ip = 20
	}
	switch how {
	case 0: // checksum made already
		return undone{make([]byte, vnetLen), tuntest.UDP(from, to, payload)}
	case 1: // and vouched for
		h := make([]byte, vnetLen)
		h[0] = 2
		return undone{h, tuntest.UDP(from, to, payload)}
	case 2: // TTL, hop limit
		if four {
			b[8]--
		} else {
			b[7]--
		}
	case 3: // TOS, traffic class
		if four {
			b[1] = 0xb8
		} else {
			b[0] |= 4
		}
	case 4: // flow label; with IPv4 other fragment bits
		if four {
			b[6] ^= 0x40
		} else {
			b[3] = 9
		}
	case 5: // forged: the length of UDP
		b[ip+5]++
	case 6: // forged: the sum of the pseudo-header
		b[ip+7] ^= 0x55
	case 7: // forged: the header's checksum
		if four {
			b[10] ^= 1
		}
		return u
	case 8: // forged: the checksum elsewhere
		binary.NativeEndian.PutUint16(u.header[8:], 4)
	case 9: // TCP
		return undone{make([]byte, vnetLen), tuntest.TCP(from, to, tuntest.ACK, 1, 1, payload)}
	case 10: // a fragment
		whole := tuntest.UDP(from, to, append(payload, make([]byte, 64)...))
		return undone{make([]byte, vnetLen), tuntest.Fragment(whole, 77, 0, 16)}
	case 11: // options; extension headers
		options := []byte{0, 0, 0, byte(len(payload))} // the end, and what may differ behind it
		if !four {
			options = []byte{protoUDP, 0, 1, 4, 0, 0, 0, byte(len(payload))}
		}
		o := append(append(append([]byte(nil), b[:ip]...), options...), b[ip:]...)
		if four {
			o[0]++
			binary.BigEndian.PutUint16(o[2:], uint16(len(o)))
		} else {
			o[6] = extDest
			binary.BigEndian.PutUint16(o[4:], uint16(len(o)-40))
		}
		u.packet = o
		binary.NativeEndian.PutUint16(u.header[6:], uint16(ip+len(options)))
	case 12: // large already
		if len(payload) > 16 {
			u.header[1] = vnetUDP
			binary.NativeEndian.PutUint16(u.header[2:], uint16(ip+udpHeader))
			binary.NativeEndian.PutUint16(u.header[4:], 16+uint16(len(payload)/64))
		}
	}
	if four {
		tuntest.FixIPv4(u.packet)
	}
	return u
}
