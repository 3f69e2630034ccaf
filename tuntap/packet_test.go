package tuntap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"fiefdom/tuntap/tuntest"
)

// changed returns a copy of b with some bytes set: position, value, ...
func changed(b []byte, set ...int) []byte {
	b = bytes.Clone(b)
	for i := 0; i < len(set); i += 2 {
		b[set[i]] = byte(set[i+1])
	}
	return b
}

// withExt puts extension headers of the given chain between an IPv6 packet's
// header and the rest.
func withExt(b []byte, first byte, ext ...byte) []byte {
	out := append(append(bytes.Clone(b[:40]), ext...), b[40:]...)
	out[6] = first
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	return out
}

// withOptions puts options (a multiple of four bytes) into an IPv4 header.
func withOptions(b []byte, options ...byte) []byte {
	out := append(append(bytes.Clone(b[:20]), options...), b[20:]...)
	out[0] = 0x40 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out
}

func TestDecode(t *testing.T) {
	u4, u6 := udp(blog, shop, 53), udp(blog6, shop6, 53)
	t4, t6 := tcp(blog, shop, 80, tuntest.SYN), tcp(blog6, shop6, 80, tuntest.SYN)
	for _, c := range []struct {
		name string
		b    []byte
		want Reason
	}{
		{"udp4", u4, pass},
		{"udp6", u6, pass},
		{"tcp4", t4, pass},
		{"tcp6", t6, pass},
		{"echo4", tuntest.Echo(blog, shop, 1, 1), pass},
		{"echo6", tuntest.Echo(blog6, shop6, 1, 1), pass},
		{"other protocol", tuntest.IP(blog, shop, 47, []byte{1}), pass},
		{"no payload at all", tuntest.IP(blog, shop, 47, nil), pass},
		{"empty", nil, DropMalformed},
		{"one byte", u4[:1], DropMalformed},
		{"19 bytes", u4[:19], DropMalformed},
		{"39 bytes of IPv6", u6[:39], DropMalformed},
		{"version 0", changed(u4, 0, 0x05), DropMalformed},
		{"version 1", changed(u4, 0, 0x15), DropMalformed},
		{"version 5", changed(u4, 0, 0x55), DropMalformed},
		{"version 7", changed(u4, 0, 0x75), DropMalformed},
		{"version 15", changed(u4, 0, 0xf5), DropMalformed},
		{"IHL 4", changed(u4, 0, 0x44), DropMalformed},
		{"IHL past the end", changed(u4[:28], 0, 0x4f), DropMalformed},
		{"total length short", u4[:len(u4)-1], DropMalformed},
		{"trailing byte", append(bytes.Clone(u4), 0), DropMalformed},
		{"payload length short", u6[:len(u6)-1], DropMalformed},
		{"trailing byte, IPv6", append(bytes.Clone(u6), 0), DropMalformed},
		{"vnet header before it", append(make([]byte, 10), u4...), DropMalformed},
		{"options", withOptions(u4, 1, 1, 1, 0), pass},
		{"loose source route", withOptions(u4, 131, 3, 4, 0), DropMalformed},
		{"strict source route", withOptions(u4, 1, 137, 3, 4), DropMalformed},
		{"broken option", withOptions(u4, 7, 1, 0, 0), DropMalformed},
		{"short udp", tuntest.IP(blog, shop, 17, make([]byte, 7)), DropMalformed},
		{"short tcp", tuntest.IP(blog, shop, 6, make([]byte, 19)), DropMalformed},
		{"short icmp", tuntest.IP(blog, shop, 1, make([]byte, 7)), DropMalformed},
		{"short icmp6", tuntest.IP(blog6, shop6, 58, make([]byte, 3)), DropMalformed},
		{"hop-by-hop", withExt(u6, 0, 17, 0, 1, 4, 0, 0, 0, 0), pass},
		{"extension past the end", withExt(u6, 0, 17, 9, 1, 4, 0, 0, 0, 0), DropMalformed},
		{"routing type 0", withExt(u6, 43, 17, 0, 0, 0, 0, 0, 0, 0), DropMalformed},
		{"routing with segments left", withExt(u6, 43, 17, 0, 4, 1, 0, 0, 0, 0), DropMalformed},
		{"routing that is done", withExt(u6, 43, 17, 0, 4, 0, 0, 0, 0, 0), pass},
		{"eight extensions and no end", withExt(u6, 60, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9)...), DropMalformed},
		{"two fragment headers", withExt(u6, 44, 44, 0, 0, 0, 0, 0, 0, 1, 17, 0, 0, 0, 0, 0, 0, 1), DropMalformed},
		{"atomic fragment", withExt(u6, 44, 17, 0, 0, 0, 0, 0, 0, 1), pass},
		{"ping of death", changed(tuntest.Fragment(tuntest.IP(blog, shop, 17, make([]byte, 800)), 1, 0, 800), 6, 0x1f, 7, 0xff), DropMalformed},
		{"first part of odd length", changed(tuntest.Fragment(tuntest.IP(blog, shop, 17, make([]byte, 19)), 1, 0, 19), 6, 0x20), DropMalformed},
		{"tiny first part", tuntest.Fragment(t4, 1, 0, 8), DropFragment},
		{"tiny first part, IPv6", tuntest.Fragment(t6, 1, 0, 8), DropFragment},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p packet
			if got := p.decode(c.b); got != c.want {
				t.Errorf("decode = %v; want %v", got, c.want)
			}
		})
	}
}

func TestDecodeReadsTheFlow(t *testing.T) {
	for name, b := range map[string][]byte{
		"IPv4":              udp(blog, shop, 53),
		"IPv4 with options": withOptions(udp(blog, shop, 53), 1, 1, 1, 1),
		"IPv6":              udp(blog6, shop6, 53),
		"IPv6 extensions":   withExt(udp(blog6, shop6, 53), 0, 44, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 1, 17, 0, 1, 4, 0, 0, 0, 0),
	} {
		var p packet
		if why := p.decode(b); why != pass {
			t.Fatalf("%s: %v", name, why)
		}
		f := p.flow
		if f.Proto != 17 || !f.HasPorts || f.SrcPort != 40000 || f.DstPort != 53 || p.part != whole {
			t.Errorf("%s: flow %+v, part %v", name, f, p.part)
		}
		if f.Src != blog && f.Src != blog6 || f.Dst != shop && f.Dst != shop6 {
			t.Errorf("%s: flow %+v", name, f)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	var p packet
	for _, b := range [][]byte{udp(blog, shop, 53), tcp(blog6, shop6, 53, 2), {1, 2, 3}} {
		if allocs := testing.AllocsPerRun(100, func() { p.decode(b) }); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(udp(blog, shop, 53))
	f.Add(tcp(blog6, shop6, 80, 2))
	f.Add(tuntest.Fragment(udp(blog6, shop6, 53), 7, 0, 8))
	f.Add(withExt(udp(blog6, shop6, 53), 0, 43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 4, 0, 0, 0, 0, 0))
	f.Add(withOptions(udp(blog, shop, 53), 1, 1, 1, 1))
	own := [2]netip.Addr{gateway, gateway6}
	scratch := make([]byte, 1500)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p packet
		before := bytes.Clone(b)
		why := p.decode(b)
		if !bytes.Equal(b, before) {
			t.Fatal("decode changed the packet")
		}
		if why != pass {
			return
		}
		if !p.flow.Src.IsValid() || !p.flow.Dst.IsValid() || p.flow.Src.Is4() != p.flow.Dst.Is4() || p.flow.Src.Is4() == p.v6 {
			t.Fatalf("flow %+v", p.flow)
		}
		if p.part == laterPart && p.flow.HasPorts {
			t.Fatal("a later part has no ports")
		}
		// What is decoded can be answered, and the answer is a packet.
		if n := p.answer(scratch, own[family(p.flow.Src)], DropRule); n > 0 {
			var back packet
			if why := back.decode(scratch[:n]); why != pass || back.flow.Dst != p.flow.Src {
				t.Fatalf("answer: %v, to %v", why, back.flow.Dst)
			}
		}
		isAnswer(&p)
		chatter(&p)
	})
}
