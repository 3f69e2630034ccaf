package tuntap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"fiefdom/tuntap/tuntest"
)

// onWire is what a capture tells packets apart by.
type onWire struct {
	six      bool
	proto    byte
	src, dst uint16 // ports; 0 where there are none
}

// inspect says what is wrong with a packet that was on a wire: its size, its
// lengths or a checksum. It is the reference: written from RFC 791, 8200 and
// 1071 word by word, and it shares no code with the router or its other tests.
func inspect(b []byte, mtu int) (f onWire, err error) {
	if len(b) > mtu {
		err = fmt.Errorf("%d bytes where %d is the most", len(b), mtu)
	}
	var pseudo, l4 []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		head := int(b[0]&15) * 4
		if head < 20 || head > len(b) || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			return f, errors.Join(err, fmt.Errorf("%d bytes, which its header does not say", len(b)))
		}
		if !sumsUp(b[:head]) {
			err = errors.Join(err, errors.New("wrong checksum of its IP header"))
		}
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return f, errors.Join(err, errors.New("a fragment, which nobody sent"))
		}
		f.proto, l4, pseudo = b[9], b[head:], append(pseudo, b[12:20]...)
	case len(b) >= 40 && b[0]>>4 == 6:
		if int(binary.BigEndian.Uint16(b[4:]))+40 != len(b) {
			return f, errors.Join(err, fmt.Errorf("%d bytes, which its header does not say", len(b)))
		}
		f.six, f.proto, l4, pseudo = true, b[6], b[40:], append(pseudo, b[8:40]...)
		if f.proto == 0 && len(l4) >= 8 { // hop-by-hop options, of multicast listeners
			f.proto, l4 = l4[0], l4[min(len(l4), 8+int(l4[1])*8):]
		}
		if f.proto == 44 {
			return f, errors.Join(err, errors.New("a fragment, which nobody sent"))
		}
	default:
		return f, errors.Join(err, errors.New("no IP packet"))
	}
	return f, errors.Join(err, f.inspect(pseudo, l4))
}

// inspect looks at the transport part. It notes the ports.
func (f *onWire) inspect(pseudo, l4 []byte) error {
	least := map[byte]int{1: 8, 58: 4, 6: 20, 17: 8}[f.proto]
	if least == 0 {
		return nil // the kernel's own, like IGMP
	}
	if len(l4) < least {
		return fmt.Errorf("cut off after %d bytes of its transport header", len(l4))
	}
	if f.proto == 6 || f.proto == 17 {
		f.src, f.dst = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	}
	if f.proto == 17 {
		if int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			return errors.New("wrong length in its UDP header")
		}
		if l4[6] == 0 && l4[7] == 0 {
			return errors.New("a UDP checksum of zero, which means none")
		}
	}
	if f.proto == 1 { // ICMP alone has no pseudo-header
		pseudo = nil
	} else {
		pseudo = append(pseudo, 0, f.proto, byte(len(l4)>>8), byte(len(l4)))
	}
	if !sumsUp(append(pseudo, l4...)) {
		return fmt.Errorf("wrong checksum of protocol %d", f.proto)
	}
	return nil
}

// sumsUp reports whether b's words, its checksum among them, add up to -0 (RFC 1071).
func sumsUp(b []byte) bool {
	total := uint64(0)
	for i, c := range b {
		total += uint64(c) << (8 * (1 - i%2))
	}
	return total > 0 && total%0xffff == 0
}

// Whatever bit is flipped, the reference finds it, but for those that nothing covers.
func TestReferenceFindsDamage(t *testing.T) {
	payload := []byte("not one bit of this may be lost")
	for name, c := range map[string]struct {
		packet []byte
		unsure map[int]bool // bytes that no checksum covers
	}{
		"UDP":      {tuntest.UDP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), payload), nil},
		"UDP, v6":  {tuntest.UDP(netip.AddrPortFrom(blog6, 1), netip.AddrPortFrom(far6, 2), payload), unsummed6},
		"TCP":      {tuntest.TCP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), tuntest.ACK, 1, 1, payload), nil},
		"TCP, v6":  {tuntest.TCP(netip.AddrPortFrom(blog6, 1), netip.AddrPortFrom(far6, 2), tuntest.ACK, 1, 1, payload), unsummed6},
		"echo":     {tuntest.Echo(blog, internet, 1, 1), nil},
		"echo, v6": {tuntest.Echo(blog6, far6, 1, 1), unsummed6},
	} {
		if _, err := inspect(c.packet, len(c.packet)); err != nil {
			t.Errorf("%s: undamaged: %v", name, err)
		}
		if _, err := inspect(c.packet, len(c.packet)-1); err == nil {
			t.Errorf("%s: too large, and not found", name)
		}
		if _, err := inspect(c.packet[:len(c.packet)-1], 1500); err == nil {
			t.Errorf("%s: cut off, and not found", name)
		}
		for i := range c.packet {
			for bit := range 8 {
				b := append([]byte(nil), c.packet...)
				b[i] ^= 1 << bit
				if _, err := inspect(b, 1500); err == nil && !c.unsure[i] {
					t.Errorf("%s: bit %d of byte %d damaged, and not found", name, bit, i)
				}
			}
		}
	}
}

// unsummed6 is what nothing covers in an IPv6 header: traffic class, flow label,
// hop limit; and the next header, which may become one whose sum is not known.
var unsummed6 = map[int]bool{0: true, 1: true, 2: true, 3: true, 6: true, 7: true}

// A checksum that comes out as zero is sent as all ones: zero would mean that
// there is none (RFC 768, RFC 8200). One datagram in 65536 has it.
func TestZeroChecksumIsSentAsOnes(t *testing.T) {
	for name, c := range map[string]struct{ from, to netip.AddrPort }{
		"IPv4": {netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(shop, 2)},
		"IPv6": {netip.AddrPortFrom(blog6, 1), netip.AddrPortFrom(shop6, 2)},
	} {
		payload := make([]byte, 64)
		sum := binary.BigEndian.Uint16(tuntest.UDP(c.from, c.to, payload)[len(tuntest.UDP(c.from, c.to, nil))-2:])
		binary.BigEndian.PutUint16(payload, sum) // what was missing to all ones
		large := partial(c.from, c.to, append(append([]byte(nil), payload...), payload...))
		large.header[1] = vnetUDP
		binary.NativeEndian.PutUint16(large.header[4:], uint16(len(payload)))
		for how, u := range map[string]undone{"finished": partial(c.from, c.to, payload), "cut": large} {
			var pk packet
			if why := pk.read(asRead(u)); why != pass {
				t.Fatal(why)
			}
			b := make([]byte, 200)
			if how == "cut" {
				b = b[:pk.segment(b, 0)]
			} else {
				pk.undone.finish(pk.raw)
				b = pk.raw
			}
			head := len(b) - len(payload) - udpHeader
			if got := binary.BigEndian.Uint16(b[head+udpChecksum:]); got != 0xffff {
				t.Errorf("%s, %s: checksum %#x", name, how, got)
			}
			if _, err := inspect(b, 1500); err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
			}
		}
	}
}
