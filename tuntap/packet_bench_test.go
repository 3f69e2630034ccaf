package tuntap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"fiefdom/tuntap/tuntest"
)

// asRead is a packet as a device gives it, at its place in the router's buffer.
func asRead(u undone) []byte { return append(make([]byte, room-vnetLen), u.framed()...) }

// partialTCP is a segment whose checksum is left to others; with a size it is
// also to be cut into segments of so many bytes.
func partialTCP(src, dst netip.AddrPort, payload []byte, size int) undone {
	u := undone{make([]byte, vnetLen), tuntest.TCP(src, dst, tuntest.ACK, 1, 1, payload)}
	l4, kind := 20, byte(vnetTCP4)
	if src.Addr().Is6() {
		l4, kind = 40, vnetTCP6
	}
	undo(u.packet, l4, 16)
	u.header[0] = vnetNeedsChecksum
	if size > 0 {
		u.header[1] = kind
		binary.NativeEndian.PutUint16(u.header[2:], uint16(l4+20))
		binary.NativeEndian.PutUint16(u.header[4:], uint16(size))
	}
	binary.NativeEndian.PutUint16(u.header[6:], uint16(l4))
	binary.NativeEndian.PutUint16(u.header[8:], 16)
	return u
}

// BenchmarkDecode is reading a packet with the device's header.
func BenchmarkDecode(b *testing.B) {
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	large := make([]byte, 60000)
	for _, c := range []struct {
		name string
		u    undone
	}{
		{"UDP4", partial(at(blog, 4000), at(shop, 53), large[:64])},
		{"UDP6", partial(at(blog6, 4000), at(shop6, 53), large[:64])},
		{"TCP4", partialTCP(at(blog, 4000), at(shop, 80), large, 1448)},
		{"TCP6", partialTCP(at(blog6, 4000), at(shop6, 80), large, 1428)},
	} {
		b.Run(c.name, func(b *testing.B) {
			framed := asRead(c.u)
			var pk packet
			b.ReportAllocs()
			for b.Loop() {
				if pk.read(framed) != pass {
					b.Fatal("it is malformed")
				}
			}
		})
	}
}

// BenchmarkLookup asks the table for one peer after the other.
func BenchmarkLookup(b *testing.B) {
	cfg := native()
	for _, n := range []int{1, 1000} {
		peers, asked := make([]*peer, n), [2][]netip.Addr{make([]netip.Addr, 1024), make([]netip.Addr, 1024)}
		for i := range 1024 {
			k := i % n
			four := netip.AddrFrom4([4]byte{10, 9, byte(1 + k/250), byte(1 + k%250)})
			six := netip.AddrFrom16([16]byte{0xfd, 9, 14: byte(1 + k/250), 15: byte(1 + k%250)})
			if i < n {
				peers[i] = new(peer)
				peers[i].holds.Store(&holding{prefixes: []netip.Prefix{single(four), single(six)}})
			}
			asked[0][i], asked[1][i] = four, six
		}
		t := newTable(&cfg, peers)
		for f, name := range []string{"IPv4", "IPv6"} {
			b.Run(fmt.Sprintf("%s/peers=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if t.owner(asked[f][i&1023]).kind != ownerPeer {
						b.Fatal("it is nobody's")
					}
				}
			})
		}
	}
}

// BenchmarkSegment cuts a large packet for a peer behind a stream, checksums
// included.
func BenchmarkSegment(b *testing.B) {
	at := func(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	payload := make([]byte, 60000)
	datagrams := partial(at(blog, 4000), at(shop, 53), payload)
	datagrams.header[1] = vnetUDP
	binary.NativeEndian.PutUint16(datagrams.header[4:], 1400)
	for _, c := range []struct {
		name string
		u    undone
	}{
		{"TCP4", partialTCP(at(blog, 4000), at(shop, 80), payload, 1448)},
		{"TCP6", partialTCP(at(blog6, 4000), at(shop6, 80), payload, 1428)},
		{"UDP", datagrams},
	} {
		b.Run(c.name, func(b *testing.B) {
			var pk packet
			if why := pk.read(asRead(c.u)); why != pass {
				b.Fatal(why)
			}
			out := make([]byte, bufferSize)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for pk.segment(out, n) > 0 {
					n++
				}
				if n < 40 {
					b.Fatalf("%d segments", n)
				}
			}
		})
	}
}

// BenchmarkChecksum is the sum over a header, a small packet, one of Ethernet's
// size, and the largest.
func BenchmarkChecksum(b *testing.B) {
	for _, size := range []int{20, 64, 1500, 65535} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i * 7)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				fold(sum(0, data))
			}
		})
	}
}
