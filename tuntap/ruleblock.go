package tuntap

import (
	"encoding/binary"
	"net/netip"

	"fiefdom/firewall"
)

// blockRule is one rule of uWSGI's rule block. Its masks need not be
// prefixes, so it is matched here and not by a firewall.Chain.
type blockRule struct {
	src, srcMask, dst, dstMask uint32
	action                     byte
	target                     netip.AddrPort // of blockRoute
}

const (
	blockRuleSize = 24
	blockAllow    = 0
	blockRoute    = 2 // uWSGI's "route" and "gateway"
)

// ruleBlock is a peer's own rules as its device sent them.
type ruleBlock [2][]blockRule // by firewall.Direction

// parseRuleBlock reads uWSGI's packed structs: direction (0 in, 1 out), source,
// its mask, destination, its mask (each 32 bits of the host's order), action,
// target and port. A rest shorter than a rule is ignored, as uWSGI does; a
// rule with an unknown direction or action is skipped.
func parseRuleBlock(b []byte) (block ruleBlock) {
	for ; len(b) >= blockRuleSize; b = b[blockRuleSize:] {
		dir, action := firewall.In, b[17]
		switch b[0] {
		case 0:
		case 1:
			dir = firewall.Out
		default:
			continue
		}
		if action > blockRoute {
			continue
		}
		block[dir] = append(block[dir], blockRule{
			src:     binary.NativeEndian.Uint32(b[1:]),
			srcMask: binary.NativeEndian.Uint32(b[5:]),
			dst:     binary.NativeEndian.Uint32(b[9:]),
			dstMask: binary.NativeEndian.Uint32(b[13:]),
			action:  action,
			target:  netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[18:22])), binary.BigEndian.Uint16(b[22:])),
		})
	}
	return block
}

// denies reports whether the first rule that matches denies. Routing is for
// packets on their way out, where there is a gateway; elsewhere it denies.
func (r *ruleBlock) denies(dir firewall.Direction, f *firewall.Flow, gateway bool) bool {
	u := r.match(dir, f)
	return u != nil && u.action != blockAllow && (u.action != blockRoute || dir != firewall.Out || !gateway)
}

// match returns the first rule that matches, or nil. A zero address is any
// address, of IPv6 too; any other matches IPv4 only.
func (r *ruleBlock) match(dir firewall.Direction, f *firewall.Flow) *blockRule {
	rules := r[dir]
	if len(rules) == 0 {
		return nil
	}
	v4 := f.Src.Is4() && f.Dst.Is4()
	var src, dst uint32
	if v4 {
		src, dst = v4bits(f.Src), v4bits(f.Dst)
	}
	for i := range rules {
		u := &rules[i]
		if u.src != 0 && (!v4 || src&u.srcMask != u.src) {
			continue
		}
		if u.dst != 0 && (!v4 || dst&u.dstMask != u.dst) {
			continue
		}
		return u
	}
	return nil
}

func v4bits(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
