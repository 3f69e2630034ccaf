package responder

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// reversed is the prefix that a name of in-addr.arpa or ip6.arpa stands for. The
// name is in small letters and without its last dot.
func reversed(name string) (netip.Prefix, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		return reversed4(strings.Split(rest, "."))
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return reversed6(strings.Split(rest, "."))
	}
	return netip.Prefix{}, false
}

func reversed4(labels []string) (netip.Prefix, bool) {
	var b [4]byte
	if len(labels) > len(b) {
		return netip.Prefix{}, false
	}
	for i, label := range slices.Backward(labels) {
		n, err := strconv.ParseUint(label, 10, 8)
		if err != nil || len(label) > 1 && label[0] == '0' {
			return netip.Prefix{}, false
		}
		b[len(labels)-1-i] = byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 8*len(labels)), true
}

func reversed6(labels []string) (netip.Prefix, bool) {
	var b [16]byte
	if len(labels) > 2*len(b) {
		return netip.Prefix{}, false
	}
	for i, label := range slices.Backward(labels) {
		n, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			return netip.Prefix{}, false
		}
		at := len(labels) - 1 - i
		b[at/2] |= byte(n) << (4 * (1 - at%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 4*len(labels)), true
}
