package tuntap

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Announcement is the first packet of a family that a device sent on: with most
// routers that one registers its source.
type Announcement struct {
	Src netip.Addr `json:"src"`
	Dst netip.Addr `json:"dst"`
}

// announcements are a bridge's, at most one a family. A router that comes back
// knows none of them, and a server that only answers would never be heard of
// again: the bridge says them anew on each connection.
type announcements struct {
	said [2]bool // by version: 4, then 6
	all  []Announcement
}

// add remembers an announcement that was made before.
func (k *announcements) add(a Announcement) {
	six := a.Src.Is6()
	if !a.Src.IsValid() || a.Src.Is4In6() || a.Dst.Is4In6() || six != a.Dst.Is6() || k.said[version(six)] {
		return
	}
	k.said[version(six)] = true
	k.all = append(k.all, a)
}

// first returns the announcement that a packet makes, if it is the first of
// its family. The packet has passed forRouters.
func (k *announcements) first(packet []byte) (a Announcement, isFirst bool) {
	six := packet[0]>>4 == 6
	if k.said[version(six)] {
		return a, false
	}
	if six {
		a = Announcement{netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))}
	} else {
		a = Announcement{netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))}
	}
	k.add(a)
	return a, slices.Contains(k.all, a)
}

func version(six bool) int {
	if six {
		return 1
	}
	return 0
}

// frames appends to b an echo request for each announcement, from its source to
// where the packet went. What answers it is nobody's loss.
func (k *announcements) frames(b []byte) []byte {
	for _, a := range k.all {
		begin := len(b)
		b = append(b, make([]byte, frameHeader)...)
		b = appendEcho(b, a)
		putHeader(b[begin:], kindData, len(b)-begin-frameHeader)
	}
	return b
}

// appendEcho appends an echo request without data (RFC 792, RFC 4443).
func appendEcho(b []byte, a Announcement) []byte {
	echo := []byte{8, 0, 0, 0, 0, 0, 0, 1}
	var head [40 + 8]byte
	var s uint32
	var whole int
	if a.Src.Is6() {
		echo[0] = 128
		whole = putIPv6(head[:], a.Src, a.Dst, protoICMP6, len(echo))
		s = pseudo(a.Src, a.Dst, protoICMP6, len(echo))
	} else {
		whole = putIPv4(head[:], a.Src, a.Dst, protoICMP, len(echo))
	}
	binary.BigEndian.PutUint16(echo[2:], fold(sum(s, echo)))
	return append(append(b, head[:whole-len(echo)]...), echo...)
}

// forRouters says whether a packet is one that a router of one subnet has a use
// for. A kernel's own chatter, neighbour discovery above all, is not: it would
// be the first packet, and uWSGI's router closes a device that begins so.
func forRouters(p []byte) bool {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return binary.BigEndian.Uint32(p[12:]) != 0
	case len(p) >= 40 && p[0]>>4 == 6:
		src := netip.AddrFrom16([16]byte(p[8:24]))
		return p[24] != 0xff && !src.IsUnspecified() && !src.IsLinkLocalUnicast()
	}
	return false
}
