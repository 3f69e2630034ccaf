package tuntap

import (
	"net/netip"
	"strings"
	"testing"

	"fiefdom/firewall"
)

func (w *world) explain(t *testing.T, q Query) *Explanation {
	t.Helper()
	if q.Vassal == "" {
		q.Vassal = "blog"
	}
	e, err := w.r.Explain(q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *Explanation) step(name string) Step {
	for _, s := range e.Steps {
		if s.Name == name {
			return s
		}
	}
	return Step{}
}

func TestExplainIPv6(t *testing.T) { // T06
	cfg := isolated()
	cfg.File, cfg.Line = "emperor.ini", 3
	w := newWorld(t, cfg)
	w.register6(w.vassal("blog", blog))
	far6 := netip.MustParseAddr("2001:db8::7")
	if e := w.explain(t, Query{Addr: far6, Proto: protoTCP, Port: 443}); e.Verdict != "allow" || e.Src != blog6 || e.To != "the host" {
		t.Errorf("%+v", e)
	}
	e := w.explain(t, Query{Addr: shop6, Proto: protoTCP, Port: 80})
	if e.Reason != "isolate" || told(e.Changes) != "" || !strings.Contains(e.Advice, "nobody has "+shop6.String()) {
		t.Errorf("of an address that nobody has: %+v", e) // a rule would only let it come to the table
	}
	if e := w.explain(t, Query{Addr: netip.MustParseAddr("fd77::1"), Proto: protoTCP, Port: 80}); told(e.Changes) != "after emperor.ini:3 tuntap-router-firewall-out = allow fd09::7 fd77::1 tcp 80" {
		t.Errorf("%+v", e)
	}
	if e := w.explain(t, Query{Addr: netip.MustParseAddr("ff02::1"), Proto: protoUDP, Port: 5353}); e.Reason != "forbidden" || e.step("form").Result != "deny" || e.Advice == "" {
		t.Errorf("chatter: %+v", e)
	}
	off := native()
	off.Own, off.Pool = []netip.Addr{gateway}, prefixes("10.9.0.0/16")
	w = newWorld(t, off)
	w.vassal("blog", blog)
	if e := w.explain(t, Query{Addr: far6, Proto: protoTCP, Port: 443, From: blog6}); e.Reason != "forbidden" || e.step("form").Why != "the router has no IPv6 address, so there is no IPv6 here" {
		t.Errorf("without IPv6: %+v", e)
	}
}

func TestExplainByTheGateway(t *testing.T) {
	cfg := federated()
	cfg.Isolate = true
	f := newFederation(t, cfg)
	end, _ := f.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Rules: deviceRules(t, "out any 198.18.0.0/15 route 198.51.100.9:4040")})
	f.register(end, blog)
	if e := f.explain(t, Query{Addr: blue, Proto: protoUDP, Port: 53}); e.Verdict != "allow" || e.To != "gateway 198.51.100.2:4040" || len(e.Changes) != 1 {
		t.Errorf("%+v", e)
	}
	if e := f.explain(t, Query{Addr: netip.MustParseAddr("198.18.0.1"), Proto: protoUDP, Port: 53}); e.Reason != "forbidden" || e.step("gateway").Result != "deny" || e.Advice == "" {
		t.Errorf("to a far end that nobody names: %+v", e)
	}
	if n := f.r.Snapshot()[0]; n.Gateway.TxPackets != 0 || n.Routes[0].Hits != 0 {
		t.Errorf("a question left by the gateway: %+v", n)
	}
}

// A device's own block is in no file; what it says is told all the same.
func TestExplainARuleBlock(t *testing.T) {
	w := newWorld(t, native())
	w.vassal("blog", blog)
	block, err := encodeRuleBlock(deviceRules(t, "out any 198.51.100.0/24 deny"))
	if err != nil {
		t.Fatal(err)
	}
	parsed := parseRuleBlock(block)
	w.holder(blog).block.Store(&parsed)
	if e := w.explain(t, Query{Addr: internet, Proto: protoTCP, Port: 80}); e.Verdict != "deny" || e.Reason != "rule" || e.Rule != nil || e.Advice == "" {
		t.Errorf("%+v", e)
	}
}

// Without direct switching both halves are told, and what is in between.
func TestExplainThroughTheHost(t *testing.T) {
	cfg := native()
	cfg.Direct = false
	cfg.In = lines(t, "deny any any tcp 80")
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	w.vassal("shop", shop)
	e := w.explain(t, Query{Addr: shop, Proto: protoTCP, Port: 80})
	var names []string
	for _, s := range e.Steps {
		names = append(names, s.Name)
	}
	if e.Verdict != "deny" || len(names) != 5 || names[1] != "table" || names[2] != "host" || names[4] != "chain in" {
		t.Errorf("%v: %+v", names, e)
	}
	if e := w.explain(t, Query{Vassal: "shop", Direction: firewall.In, Addr: blog, Proto: protoTCP, Port: 81}); e.Verdict != "allow" || e.To != "vassal shop" || e.step("source").About != "blog" {
		t.Errorf("%+v", e)
	}
}
