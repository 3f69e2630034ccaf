package tuntest

import (
	"net/netip"
	"testing"
)

func TestChecksumsAreRight(t *testing.T) {
	a4, b4 := netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")
	a6, b6 := netip.MustParseAddr("fd09::2"), netip.MustParseAddr("fd09::3")
	for name, packet := range map[string][]byte{
		"udp4":  UDP(netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("odd")),
		"udp6":  UDP(netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), []byte("odd")),
		"tcp4":  TCP(netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), SYN, 1, 0, nil),
		"tcp6":  TCP(netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), ACK, 1, 2, []byte("x")),
		"echo6": Echo(a6, b6, 1, 1),
	} {
		if sum := TransportChecksum(packet); sum != 0 && sum != 0xffff {
			t.Errorf("%s: checksum is off by %#x", name, sum)
		}
	}
	if echo := Echo(a4, b4, 1, 1); Checksum(echo[20:]) != 0 || Checksum(echo[:20]) != 0 {
		t.Error("echo4: checksum is wrong")
	}
}
