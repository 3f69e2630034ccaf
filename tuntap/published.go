package tuntap

import (
	"cmp"
	"net/netip"
	"slices"

	"fiefdom/firewall"
)

// Port is a published port of the host's, or a range of them: what an isolated
// vassal may reach at the host's and the router's own addresses.
type Port struct {
	Addr  netip.Addr `json:"addr,omitzero"` // invalid: every address; unspecified: every one of its family
	Proto uint8      `json:"proto"`         // TCP or UDP
	First uint16     `json:"first"`
	Last  uint16     `json:"last"`
}

// openPorts are published ports, compiled: by address and protocol the ranges,
// which are in order and apart.
type openPorts map[openAt][]portRange

// openAt is where ports are open; an invalid address: at all of the host's, by
// family.
type openAt struct {
	addr  netip.Addr
	v6    bool
	proto uint8
}

type portRange struct{ first, last uint16 }

func newOpenPorts(list []Port) openPorts {
	open := openPorts{}
	for _, p := range list {
		if p.Addr.IsLoopback() || p.First > p.Last {
			continue // a vassal never reaches the host's loopback
		}
		for _, v6 := range []bool{false, true} {
			if p.Addr.IsValid() && p.Addr.Is6() != v6 {
				continue
			}
			at := openAt{addr: p.Addr, v6: v6, proto: p.Proto}
			if p.Addr.IsUnspecified() {
				at.addr = netip.Addr{}
			}
			open[at] = append(open[at], portRange{p.First, p.Last})
		}
	}
	for at, ranges := range open {
		open[at] = joined(ranges)
	}
	return open
}

// joined puts ranges in order and makes one of those that overlap.
func joined(ranges []portRange) []portRange {
	slices.SortFunc(ranges, func(a, b portRange) int { return cmp.Compare(a.first, b.first) })
	out := ranges[:1]
	for _, r := range ranges[1:] {
		if last := &out[len(out)-1]; r.first <= last.last {
			last.last = max(last.last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// has reports whether a packet is for a port that is open at its destination,
// an address of the host's.
func (open openPorts) has(f *firewall.Flow) bool {
	at := openAt{v6: f.Dst.Is6(), proto: f.Proto}
	if within(open[at], f.DstPort) {
		return true
	}
	at.addr = f.Dst
	return within(open[at], f.DstPort)
}

// opens reports whether a packet is for what is published.
func (w *walls) opens(f *firewall.Flow) bool {
	return len(w.published) > 0 && f.HasPorts && w.host[f.Dst] && w.published.has(f)
}

func within(ranges []portRange, port uint16) bool {
	_, found := slices.BinarySearchFunc(ranges, port, func(r portRange, port uint16) int {
		switch {
		case r.last < port:
			return -1
		case r.first > port:
			return 1
		}
		return 0
	})
	return found
}
