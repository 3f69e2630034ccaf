package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseRule reads "ACTION [SRC DST [PROTO [PORTS]]]"; the package's comment
// says what the words mean. Its errors name the word and the way out; the
// caller adds file and line, also to the rule.
func ParseRule(s string) (Rule, error) {
	w := words(s)
	if len(w) == 0 {
		return Rule{}, errors.New("empty rule; want ACTION [SRC DST [PROTO [PORTS]]]")
	}
	var r Rule
	var err error
	if r.Action, err = ParseAction(w[0]); err != nil {
		return Rule{}, err
	}
	switch {
	case len(w) == 1:
		return r, nil
	case len(w) == 2:
		return Rule{}, fmt.Errorf("%q has no destination; want %q for everything from there, or only %q", s, w[0]+" "+w[1]+" any", w[0])
	case len(w) > 5:
		return Rule{}, fmt.Errorf("unexpected %q; want ACTION [SRC DST [PROTO [PORTS]]], with no blanks in PORTS", w[5])
	}
	if r.Src, r.Dst, err = parsePair(w[1], w[2]); err != nil {
		return Rule{}, err
	}
	if len(w) > 3 {
		if r.Proto, err = parseProto(w[3]); err != nil {
			return Rule{}, err
		}
		if err = checkFamily(&r); err != nil {
			return Rule{}, err
		}
	}
	if len(w) > 4 {
		if !hasPorts(r.Proto) {
			return Rule{}, fmt.Errorf("ports %q need tcp, udp or sctp before them, not %s", w[4], w[3])
		}
		if r.Ports, err = parsePorts(w[4]); err != nil {
			return Rule{}, err
		}
	}
	return r, nil
}

// ParseDeviceRule reads uWSGI's "in|out SRC DST ACTION [TARGET]", with masks
// that do what they say. The actions route and gateway, which have a target,
// are no matter of a firewall's; the caller reads them.
func ParseDeviceRule(s string) (Direction, Rule, error) {
	w := words(s)
	if len(w) < 4 || len(w) > 5 {
		return Out, Rule{}, fmt.Errorf("%q is not a device rule; want in|out SRC DST ACTION", s)
	}
	dir, err := ParseDirection(w[0])
	if err != nil {
		return Out, Rule{}, err
	}
	var r Rule
	if r.Src, r.Dst, err = parsePair(w[1], w[2]); err != nil {
		return Out, Rule{}, err
	}
	if r.Action, err = ParseAction(w[3]); err != nil {
		return Out, Rule{}, err
	}
	if len(w) == 5 {
		return Out, Rule{}, fmt.Errorf("unexpected %q; %s has no target", w[4], w[3])
	}
	return dir, r, nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == '\t' })
}

func parsePair(src, dst string) (s, d netip.Prefix, err error) {
	if s, err = parsePrefix(src); err != nil {
		return s, d, fmt.Errorf("source: %w", err)
	}
	if d, err = parsePrefix(dst); err != nil {
		return s, d, fmt.Errorf("destination: %w", err)
	}
	if s.IsValid() && d.IsValid() && s.Addr().Is4() != d.Addr().Is4() {
		return s, d, fmt.Errorf("source %s and destination %s are of different families; no packet has both (any stands for either)", src, dst)
	}
	return s, d, nil
}

// parsePrefix returns the masked prefix, or the zero one for any.
func parsePrefix(s string) (netip.Prefix, error) {
	if s == "any" {
		return netip.Prefix{}, nil
	}
	host, bits, masked := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address; want one like 10.9.0.7, 10.9.0.0/16, fd00::/64 or any", s)
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q has a zone; rules match addresses only, write %s", s, addr.WithZone(""))
	}
	n := addr.BitLen()
	if masked {
		n, err = strconv.Atoi(bits)
		// Comparing the text refuses +8 and 08, which read like something else.
		if err != nil || n < 0 || n > addr.BitLen() || strconv.Itoa(n) != bits {
			return netip.Prefix{}, fmt.Errorf("mask of %q is not a number from 0 to %d", s, addr.BitLen())
		}
	}
	p := netip.PrefixFrom(addr, n).Masked()
	if p.Addr().IsUnspecified() && (addr.Is4() || !masked) {
		p = netip.PrefixFrom(p.Addr(), 0)
	}
	return p, nil
}

// checkFamily refuses the ICMP of one family between addresses of the other:
// such a rule would match nothing, and a deny that matches nothing is open.
func checkFamily(r *Rule) error {
	p := r.Src
	if !p.IsValid() {
		p = r.Dst
	}
	switch {
	case !p.IsValid():
	case r.Proto == protoICMP && p.Addr().Is6():
		return fmt.Errorf("icmp is of IPv4, %s of IPv6; want icmp6", p)
	case r.Proto == protoICMP6 && p.Addr().Is4():
		return fmt.Errorf("icmp6 is of IPv6, %s of IPv4; want icmp", p)
	}
	return nil
}

func parsePorts(s string) ([]PortRange, error) {
	var ports []PortRange
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil {
			return nil, fmt.Errorf("%q in ports %q is not a port or a range of ports; want them like 22,80,1000-2000, at most 65535", item, s)
		}
		if a > b {
			return nil, fmt.Errorf("range %q in ports %q is the wrong way round; want %d-%d", item, s, b, a)
		}
		ports = append(ports, PortRange{First: uint16(a), Last: uint16(b)})
	}
	return ports, nil
}
