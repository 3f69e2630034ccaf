package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fiefdom/emperor"
	"fiefdom/firewall"
	"fiefdom/tuntap"
)

// The runner's side of what is asked of the router through the control API,
// which carries a question in a URL's query.

// explain asks the router about a packet, and leaves out what the asker may not see.
func (r *runner) explain(ctx context.Context, name string, values url.Values, sees emperor.Sees) (any, error) {
	q, err := readQuery(values)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", emperor.ErrBadQuery, err)
	}
	q.Vassal = name
	e, err := r.keeper.Explain(ctx, q)
	if err != nil {
		return nil, err
	}
	veil(e, sees)
	return e, nil
}

// drops asks the router for the drops of a vassal's packets. The rules among
// them are the vassal's or the network's: no peer is counted others' drops.
func (r *runner) drops(ctx context.Context, name string) (any, error) {
	return r.keeper.LastDrops(ctx, name)
}

// veil takes out of an explanation what the asker may not see: others' names and
// their own rules, and of the emperor's those that did not decide.
func veil(e *tuntap.Explanation, sees emperor.Sees) {
	if sees("") {
		return
	}
	if to, ok := strings.CutPrefix(e.To, "vassal "); ok && !sees(to) {
		e.To = "another vassal"
	}
	for i := range e.Steps {
		s := &e.Steps[i]
		if s.About != "" && !sees(s.About) {
			s.About, s.Why = "", "the address is another vassal's"
		}
		if s.Vassal == "" && !strings.HasPrefix(s.Name, "rules ") {
			s.Rules = slices.DeleteFunc(s.Rules, func(c tuntap.Considered) bool { return !c.Hit })
			continue
		}
		if sees(s.Vassal) {
			continue
		}
		for _, c := range s.Rules {
			if c.Hit && e.Rule != nil && *e.Rule == c.RulePlace {
				e.Rule, e.Changes, e.Seen = nil, nil, nil
				e.Advice = "the rules of the other end are not yours to see; ask who runs it"
			}
		}
		s.Vassal, s.Rules, s.Why = "", nil, "another vassal's, which are not yours to see"
	}
}

// writeQuery puts a question into a URL's query; readQuery reads it back.
func writeQuery(q tuntap.Query) url.Values {
	v := url.Values{
		"direction": {q.Direction.String()}, "proto": {strconv.Itoa(int(q.Proto))},
		"addr": {q.Addr.String()}, "port": {strconv.Itoa(int(q.Port))}, "network": {q.Network},
	}
	if q.From.IsValid() {
		v.Set("from", q.From.String())
	}
	return v
}

func readQuery(v url.Values) (q tuntap.Query, err error) {
	if q.Direction, err = firewall.ParseDirection(v.Get("direction")); err != nil {
		return q, err
	}
	proto, err := strconv.ParseUint(v.Get("proto"), 10, 8)
	if err != nil || proto == 0 {
		return q, fmt.Errorf("proto %q; want a number from 1 to 255", v.Get("proto"))
	}
	port, err := strconv.ParseUint(v.Get("port"), 10, 16)
	if err != nil {
		return q, fmt.Errorf("port %q; want a number from 0 to 65535", v.Get("port"))
	}
	q.Proto, q.Port, q.Network = uint8(proto), uint16(port), v.Get("network")
	if q.Addr, err = parseAddr(v.Get("addr")); err != nil {
		return q, err
	}
	if v.Has("from") {
		q.From, err = parseAddr(v.Get("from"))
	}
	return q, err
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%q is no address; want one like 10.9.0.7 or fd09::7", text)
	}
	return a, nil
}

// parseQuestion reads the words of fiefdom explain: out|in PROTO ADDR[:PORT].
func parseQuestion(direction, proto, addr string) (q tuntap.Query, err error) {
	if q.Direction, err = firewall.ParseDirection(direction); err != nil {
		return q, err
	}
	if q.Proto, err = firewall.ParseProto(proto); err != nil {
		return q, err
	}
	if q.Proto == 0 {
		return q, fmt.Errorf("a packet has one protocol, not any; want tcp, udp, icmp or a number")
	}
	if ap, perr := netip.ParseAddrPort(addr); perr == nil {
		if !firewall.HasPorts(q.Proto) {
			return q, fmt.Errorf("%s has no ports; write the address alone, %s", proto, ap.Addr())
		}
		q.Addr, q.Port = ap.Addr(), ap.Port()
	} else if q.Addr, err = parseAddr(strings.Trim(addr, "[]")); err != nil {
		return q, fmt.Errorf("%q; want an address such as 10.9.0.3, with its port such as 10.9.0.3:5432 or [fd09::3]:5432", addr)
	}
	if firewall.HasPorts(q.Proto) && q.Port == 0 {
		return q, fmt.Errorf("%s needs the port that the packet is for: %s", proto, netip.AddrPortFrom(q.Addr, 80))
	}
	if proto == "icmp" && q.Addr.Is6() {
		q.Proto, err = firewall.ParseProto("icmp6") // ping is ping
	}
	return q, err
}
