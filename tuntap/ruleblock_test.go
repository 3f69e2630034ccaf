package tuntap

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"fiefdom/firewall"
)

// blockOf packs rules as uWSGI's device does.
func blockOf(rules ...[6]uint32) (b []byte) {
	for _, r := range rules {
		one := make([]byte, blockRuleSize)
		one[0], one[17] = byte(r[0]), byte(r[5])
		for i, v := range r[1:5] {
			binary.NativeEndian.PutUint32(one[1+4*i:], v)
		}
		b = append(b, one...)
	}
	return b
}

func TestRuleBlock(t *testing.T) {
	const in, out = 0, 1
	const b7, b8, host, net24 = 0x0a090007, 0x0a090008, 0xffffffff, 0xffffff00
	flow4 := &firewall.Flow{Src: blog, Dst: shop}
	flow6 := &firewall.Flow{Src: blog6, Dst: shop6}
	for _, c := range []struct {
		name  string
		block []byte
		dir   firewall.Direction
		flow  *firewall.Flow
		want  bool
	}{
		{"none allows", nil, firewall.Out, flow4, false},
		{"deny a host", blockOf([6]uint32{out, b7, host, b8, host, 1}), firewall.Out, flow4, true},
		{"other direction", blockOf([6]uint32{in, b7, host, b8, host, 1}), firewall.Out, flow4, false},
		{"in", blockOf([6]uint32{in, b7, host, b8, host, 1}), firewall.In, flow4, true},
		{"first wins", blockOf([6]uint32{out, 0, 0, b8, host, 0}, [6]uint32{out, 0, 0, 0, 0, 1}), firewall.Out, flow4, false},
		{"host bits never match", blockOf([6]uint32{out, b7, net24, 0, 0, 1}), firewall.Out, flow4, false},
		{"masked", blockOf([6]uint32{out, 0x0a090000, net24, 0, 0, 1}), firewall.Out, flow4, true},
		{"gateway drops out", blockOf([6]uint32{out, 0, 0, 0, 0, 2}), firewall.Out, flow4, true},
		{"gateway drops in", blockOf([6]uint32{in, 0, 0, 0, 0, 2}), firewall.In, flow4, true},
		{"unknown action is skipped", blockOf([6]uint32{out, 0, 0, 0, 0, 3}), firewall.Out, flow4, false},
		{"unknown direction is skipped", blockOf([6]uint32{7, 0, 0, 0, 0, 1}), firewall.Out, flow4, false},
		{"any is any family", blockOf([6]uint32{out, 0, 0, 0, 0, 1}), firewall.Out, flow6, true},
		{"an address is IPv4 only", blockOf([6]uint32{out, b7, 0, 0, 0, 1}), firewall.Out, flow6, false},
		{"23 bytes are no rule", blockOf([6]uint32{out, 0, 0, 0, 0, 1})[:23], firewall.Out, flow4, false},
		{"a rest is ignored", append(blockOf([6]uint32{out, 0, 0, 0, 0, 1}), 1, 2, 3), firewall.Out, flow4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			block := parseRuleBlock(c.block)
			if got := block.denies(c.dir, c.flow, false); got != c.want {
				t.Errorf("denies = %v; want %v", got, c.want)
			}
			if got, routes := block.denies(c.dir, c.flow, true), strings.HasPrefix(c.name, "gateway drops out"); got != (c.want && !routes) {
				t.Errorf("with a gateway denies = %v", got)
			}
		})
	}
}

func TestRuleBlockOverTheWire(t *testing.T) {
	w := newWorld(t, native(), foreignOnly)
	f := w.connect()
	f.write(framed(kindRules, blockOf([6]uint32{1, 0, 0, 0xc6336407, 0xffffffff, 1}))) // 198.51.100.7
	f.send(udp(blog, internet, 9))
	if h := w.await("registered"); h.addr != blog {
		t.Fatalf("a packet that the peer's own rules drop registered %v", h.addr)
	}
	w.dropped("", DropRule, 1)
	f.write(framed(kindRules, nil)) // replaces them by none
	f.send(udp(blog, internet, 9))
	w.host.Receive(t)
}

func FuzzRuleBlock(f *testing.F) {
	f.Add(blockOf([6]uint32{1, 1, 2, 3, 4, 1}), uint32(5), uint32(6))
	f.Fuzz(func(t *testing.T, b []byte, src, dst uint32) {
		block := parseRuleBlock(b)
		if n := len(block[0]) + len(block[1]); n > len(b)/blockRuleSize {
			t.Fatalf("%d rules in %d bytes", n, len(b))
		}
		addr := func(v uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		flow := firewall.Flow{Src: addr(src), Dst: addr(dst)}
		for _, dir := range []firewall.Direction{firewall.In, firewall.Out} {
			if got, want := block.denies(dir, &flow, false), naiveBlock(b, dir, src, dst); got != want {
				t.Fatalf("direction %v: denies = %v; want %v", dir, got, want)
			}
		}
	})
}

// naiveBlock is uWSGI's loop over the packed rules.
func naiveBlock(b []byte, dir firewall.Direction, src, dst uint32) bool {
	want := byte(0)
	if dir == firewall.Out {
		want = 1
	}
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(b[i:]) }
	for ; len(b) >= 24; b = b[24:] {
		if b[0] != want || b[17] > 2 {
			continue
		}
		if word(1) != 0 && src&word(5) != word(1) || word(9) != 0 && dst&word(13) != word(9) {
			continue
		}
		return b[17] != 0
	}
	return false
}
