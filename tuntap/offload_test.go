package tuntap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"fiefdom/tuntap/tuntest"
)

// large is a packet as a kernel with offloads hands it out: one header for many
// segments, the checksum left at the sum of the pseudo-header.
type large struct {
	packet  []byte
	header  []byte
	l4      int // offset of the transport header
	head    int // bytes before the payload
	size    int
	tcp     bool
	payload []byte
}

func drawLarge(t *rapid.T) large {
	six, tcp := rapid.Bool().Draw(t, "IPv6"), rapid.Bool().Draw(t, "TCP")
	src, dst := blog, internet
	if six {
		src, dst = blog6, shop6
	}
	g := large{tcp: tcp, l4: 20, size: rapid.IntRange(1, 1460).Draw(t, "size")}
	if six {
		g.l4 = 40
	}
	g.payload = rapid.SliceOfN(rapid.Byte(), 1, 9000).Draw(t, "payload")
	var kind byte = vnetUDP
	place := 6
	if tcp {
		flags := byte(rapid.IntRange(0, 255).Draw(t, "flags"))
		g.packet = tuntest.TCP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, 80), flags, 0xffffff00, 7, g.payload)
		g.head, kind, place = g.l4+20, vnetTCP4, 16
		if six {
			kind = vnetTCP6
		}
	} else {
		g.packet = tuntest.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, 53), g.payload)
		g.head = g.l4 + 8
	}
	undo(g.packet, g.l4, place)
	g.header = make([]byte, vnetLen)
	g.header[0], g.header[1] = vnetNeedsChecksum, kind
	binary.NativeEndian.PutUint16(g.header[4:], uint16(g.size))
	binary.NativeEndian.PutUint16(g.header[6:], uint16(g.l4))
	binary.NativeEndian.PutUint16(g.header[8:], uint16(place))
	return g
}

// undo puts the sum of the pseudo-header into the checksum's field.
func undo(b []byte, l4, place int) {
	clear(b[l4+place : l4+place+2])
	whole := binary.BigEndian.Uint16(binary.BigEndian.AppendUint16(nil, tuntest.TransportChecksum(b)))
	// The checksum over everything, without that over the segment alone, is the pseudo-header's.
	alone := tuntest.Checksum(b[l4:])
	sum := uint32(^whole) + uint32(alone)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[l4+place:], uint16(sum))
}

func (g *large) decode(t *rapid.T) *packet {
	framed := append(append(make([]byte, room-vnetLen), g.header...), g.packet...)
	p := new(packet)
	if why := p.read(framed); why != pass {
		t.Fatalf("it is %v", why)
	}
	return p
}

// A large packet is cut into packets of the right size, each valid by itself,
// that together are what was sent.
func TestSegmentsAreValidAndWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawLarge(t)
		p := g.decode(t)
		var got []byte
		count, bytesOnWire := 0, 0
		for ; ; count++ {
			b := make([]byte, 2000)
			n := p.segment(b, count)
			if n == 0 {
				break
			}
			b = b[:n]
			bytesOnWire += n
			g.checkSegment(t, b, count, len(got))
			got = append(got, b[g.head:]...)
		}
		if !bytes.Equal(got, g.payload) {
			t.Fatalf("the segments carry %d bytes, not the %d that were sent", len(got), len(g.payload))
		}
		if packets, size := p.onWire(); packets != count || size != bytesOnWire {
			t.Fatalf("counted as %d packets of %d bytes; they are %d of %d", packets, size, count, bytesOnWire)
		}
	})
}

func (g *large) checkSegment(t *rapid.T, b []byte, i, before int) {
	var p packet
	if why := p.decode(b); why != pass {
		t.Fatalf("segment %d is %v", i, why)
	}
	last := before+len(b)-g.head == len(g.payload)
	if size := len(b) - g.head; size > g.size || !last && size != g.size {
		t.Fatalf("segment %d carries %d bytes; want %d", i, size, g.size)
	}
	if b[0]>>4 == 4 && tuntest.Checksum(b[:20]) != 0 {
		t.Fatalf("segment %d: wrong header checksum", i)
	}
	if sum := tuntest.TransportChecksum(b); sum != 0 {
		t.Fatalf("segment %d: checksum is off by %#x", i, sum)
	}
	if !g.tcp {
		return
	}
	if seq := binary.BigEndian.Uint32(p.l4[4:]); seq != 0xffffff00+uint32(before) {
		t.Fatalf("segment %d begins at %#x", i, seq)
	}
	want := g.packet[g.l4+13]
	if !last {
		want &^= tcpFIN | tcpPSH
	}
	if i > 0 {
		want &^= tcpCWR
	}
	if p.l4[13] != want {
		t.Fatalf("segment %d has flags %#x; want %#x", i, p.l4[13], want)
	}
}

func TestChecksumIsFinishedForStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawLarge(t)
		g.header[1] = vnetWhole
		p := g.decode(t)
		p.undone.finish(p.raw)
		if sum := tuntest.TransportChecksum(p.raw); sum != 0 {
			t.Fatalf("checksum is off by %#x", sum)
		}
	})
}

// A header that does not fit its packet is only made by somebody who forges it.
func TestForgedOffloadsAreMalformed(t *testing.T) {
	tcpPacket := tuntest.TCP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), tuntest.ACK, 1, 1, make([]byte, 100))
	udpPacket := udp(blog, internet, 53)
	first := tuntest.Fragment(tuntest.UDP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), make([]byte, 56)), 1, 0, 32)
	header := func(flags, kind byte, size, start, place uint16) []byte {
		h := make([]byte, vnetLen)
		h[0], h[1] = flags, kind
		binary.NativeEndian.PutUint16(h[4:], size)
		binary.NativeEndian.PutUint16(h[6:], start)
		binary.NativeEndian.PutUint16(h[8:], place)
		return h
	}
	for name, c := range map[string]struct {
		header, packet []byte
	}{
		"checksum beyond the end":   {header(vnetNeedsChecksum, vnetWhole, 0, 0xffff, 0xffff), tcpPacket},
		"checksum at the last byte": {header(vnetNeedsChecksum, vnetWhole, 0, 20, uint16(len(tcpPacket)-21)), tcpPacket},
		"segments of nothing":       {header(0, vnetTCP4, 0, 0, 0), tcpPacket},
		"UDP that says TCP":         {header(0, vnetTCP4, 100, 0, 0), udpPacket},
		"TCP that says UDP":         {header(0, vnetUDP, 100, 0, 0), tcpPacket},
		"a fragment":                {header(0, vnetUDP, 8, 0, 0), first},
		"UFO":                       {header(0, 3, 100, 0, 0), udpPacket},
		"an unknown kind":           {header(0, 77, 100, 0, 0), udpPacket},
	} {
		var p packet
		if why := p.read(append(append(make([]byte, room-vnetLen), c.header...), c.packet...)); why != DropMalformed {
			t.Errorf("%s: %v; want malformed", name, why)
		}
	}
}

func FuzzOffload(f *testing.F) {
	f.Add(make([]byte, vnetLen), udp(blog, internet, 53))
	f.Add([]byte{1, 1, 0, 0, 100, 0, 20, 0, 16, 0}, tuntest.TCP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), tuntest.ACK, 1, 1, make([]byte, 500)))
	f.Fuzz(func(t *testing.T, header, b []byte) {
		if len(header) != vnetLen {
			return
		}
		var p packet
		framed := append(append(make([]byte, room-vnetLen), header...), b...)
		if p.read(framed) != pass {
			return
		}
		p.undone.finish(p.raw)
		packets, _ := p.onWire()
		if p.undone.kind == vnetWhole {
			return
		}
		out := make([]byte, bufferSize)
		n := 0
		for p.segment(out, n) > 0 {
			n++
		}
		if n != packets {
			t.Errorf("%d segments; counted as %d", n, packets)
		}
	})
}
