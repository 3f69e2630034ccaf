package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"fiefdom/emperor"
	"fiefdom/firewall"
	"fiefdom/tuntap"
)

// capture has the router copy a vassal's packets.
func (r *runner) capture(ctx context.Context, name string, values url.Values) (net.Conn, error) {
	q, err := readFilter(values)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", emperor.ErrBadQuery, err)
	}
	q.Vassal = name
	return r.keeper.Capture(ctx, q)
}

// parseFilter reads a capture's words: [PROTO] [host ADDR[/BITS]] [port N].
func parseFilter(words []string) (q tuntap.CaptureQuery, err error) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if word == "host" || word == "port" {
			if len(words) == 0 {
				return q, fmt.Errorf("%s wants a word after it: host 10.9.0.3, port 443", word)
			}
			if err := filterBy(&q, word, words[0]); err != nil {
				return q, err
			}
			words = words[1:]
			continue
		}
		if q.Proto != 0 {
			return q, fmt.Errorf("unexpected %q; want [PROTO] [host ADDR[/BITS]] [port N]", word)
		}
		if q.Proto, err = firewall.ParseProto(word); err != nil {
			return q, fmt.Errorf("%w; or host, port", err)
		}
	}
	return q, nil
}

func filterBy(q *tuntap.CaptureQuery, word, value string) error {
	switch {
	case word == "host" && !q.Host.IsValid():
		if a, err := netip.ParseAddr(value); err == nil && a.Zone() == "" {
			q.Host = netip.PrefixFrom(a, a.BitLen())
			return nil
		}
		p, err := netip.ParsePrefix(value)
		if err != nil {
			return fmt.Errorf("host %q; want an address such as 10.9.0.3, or a prefix such as 10.9.0.0/24", value)
		}
		q.Host = p.Masked()
	case word == "port" && q.Port == 0:
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("port %q; want a number from 1 to 65535", value)
		}
		q.Port = uint16(n)
	default:
		return fmt.Errorf("%s comes twice", word)
	}
	return nil
}

// writeFilter puts a capture's question into a URL's query; readFilter reads it back.
func writeFilter(q tuntap.CaptureQuery) url.Values {
	v := url.Values{"proto": {strconv.Itoa(int(q.Proto))}, "snap": {strconv.Itoa(q.Snap)}, "network": {q.Network}}
	if q.Host.IsValid() {
		v.Set("host", q.Host.String())
	}
	if q.Port != 0 {
		v.Set("port", strconv.Itoa(int(q.Port)))
	}
	return v
}

func readFilter(v url.Values) (q tuntap.CaptureQuery, err error) {
	proto, err := strconv.ParseUint(v.Get("proto"), 10, 8)
	if err != nil {
		return q, fmt.Errorf("proto %q; want a number from 0 to 255", v.Get("proto"))
	}
	q.Proto, q.Network = uint8(proto), v.Get("network")
	if q.Snap, err = strconv.Atoi(v.Get("snap")); err != nil || q.Snap < 0 {
		return q, errors.New("snap wants a number from 0 on")
	}
	for _, word := range []string{"host", "port"} {
		if v.Has(word) {
			if err := filterBy(&q, word, v.Get(word)); err != nil {
				return q, err
			}
		}
	}
	return q, nil
}
