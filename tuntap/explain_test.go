package tuntap

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

// lines are an emperor's firewall rules as they would be read from its ini,
// from line 10 on.
func lines(t testing.TB, texts ...string) (rules []firewall.Rule) {
	t.Helper()
	for i, text := range texts {
		r, err := firewall.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		r.File, r.Line = "emperor.ini", 10+i
		rules = append(rules, r)
	}
	return rules
}

func TestExplain(t *testing.T) {
	cfg := isolated()
	cfg.File, cfg.Line = "emperor.ini", 3
	cfg.Out = lines(t, "allow any 10.9.0.1", "allow any any tcp 443", "deny any 10.9.0.0/24")
	cfg.In = lines(t, "reject any any tcp 23")
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	end, _ := w.handOver(Handover{Vassal: "shop", May: []netip.Prefix{single(shop)}, Rules: deviceRules(t, "in 198.51.100.0/24 any deny")})
	w.register(end, shop)
	nobodys := netip.MustParseAddr("10.9.3.3")
	for _, c := range []struct {
		name                  string
		query                 Query
		verdict, reason, rule string
		change                string // all of them; empty: advice
	}{
		{
			"a rule",
			Query{Addr: shop, Proto: protoTCP, Port: 5432},
			"deny", "rule", "emperor.ini:12",
			"before emperor.ini:12 tuntap-router-firewall-out = allow 10.9.0.7 10.9.0.8 tcp 5432",
		},
		{
			"an earlier rule",
			Query{Addr: shop, Proto: protoTCP, Port: 443},
			"allow", "", "emperor.ini:11",
			"before emperor.ini:11 tuntap-router-firewall-out = deny 10.9.0.7 10.9.0.8 tcp 443",
		},
		{
			"isolate",
			Query{Addr: netip.MustParseAddr("192.168.1.1"), Proto: protoTCP, Port: 80},
			"deny", "isolate", "",
			"before emperor.ini:10 tuntap-router-firewall-out = allow 10.9.0.7 192.168.1.1 tcp 80",
		},
		{
			"the internet",
			Query{Addr: internet, Proto: protoUDP, Port: 53},
			"allow", "", "",
			"before emperor.ini:10 tuntap-router-firewall-out = deny 10.9.0.7 198.51.100.7 udp 53",
		},
		{
			"another's own rules",
			Query{Vassal: "shop", Direction: firewall.In, Addr: internet, Proto: protoTCP, Port: 80},
			"deny", "rule", "blog.ini:1",
			"before blog.ini:1 tuntap-device-rule = in 198.51.100.7 10.9.0.8 allow",
		},
		{
			"rejected, then denied",
			Query{Vassal: "shop", Direction: firewall.In, Addr: internet, Proto: protoTCP, Port: 23},
			"reject", "rule", "emperor.ini:10",
			"before emperor.ini:10 tuntap-router-firewall-in = allow 198.51.100.7 10.9.0.8 tcp 23, before blog.ini:1 tuntap-device-rule = in 198.51.100.7 10.9.0.8 allow",
		},
		{
			"in from a vassal",
			Query{Vassal: "shop", Direction: firewall.In, Addr: blog, Proto: protoTCP, Port: 23},
			"deny", "rule", "emperor.ini:12",
			"before emperor.ini:12 tuntap-router-firewall-out = allow 10.9.0.7 10.9.0.8 tcp 23, before emperor.ini:10 tuntap-router-firewall-in = allow 10.9.0.7 10.9.0.8 tcp 23",
		},
		{"in from the internet", Query{Direction: firewall.In, Addr: internet, Proto: protoICMP}, "allow", "", "", "before emperor.ini:10 tuntap-router-firewall-in = deny 198.51.100.7 10.9.0.7 icmp"},
		{"nobody has it", Query{Addr: nobodys, Proto: protoTCP, Port: 443}, "reject", "no-route", "", ""},
		{"spoofed", Query{Addr: internet, Proto: protoTCP, Port: 443, From: internet}, "deny", "spoofed", "", ""},
		{"another's address", Query{Addr: internet, Proto: protoTCP, Port: 443, From: shop}, "deny", "spoofed", "", ""},
		{"the router", Query{Addr: gateway, Proto: protoICMP}, "allow", "", "emperor.ini:10", "before emperor.ini:10"},
		{"no IPv6 address", Query{Addr: shop6, Proto: protoTCP, Port: 1}, "error", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.query.Vassal == "" {
				c.query.Vassal = "blog"
			}
			e, err := w.r.Explain(c.query)
			if c.verdict == "error" {
				if err == nil {
					t.Fatalf("%+v", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rule := ""
			if e.Rule != nil {
				rule = fmt.Sprintf("%s:%d", e.Rule.File, e.Rule.Line)
			}
			if e.Verdict != c.verdict || c.reason != "" && e.Reason != c.reason || rule != c.rule {
				t.Errorf("%s %s %s, want %s %s %s; %+v", e.Verdict, e.Reason, rule, c.verdict, c.reason, c.rule, e.Steps)
			}
			if got := told(e.Changes); c.change == "" && e.Advice == "" || !strings.HasPrefix(got, c.change) || c.change == "" && got != "" {
				t.Errorf("change %q, advice %q, want %q", got, e.Advice, c.change)
			}
		})
	}
}

func told(changes []Change) string {
	var list []string
	for _, c := range changes {
		where := "after"
		if c.Before {
			where = "before"
		}
		list = append(list, fmt.Sprintf("%s %s:%d %s", where, c.File, c.Line, c.Text))
	}
	return strings.Join(list, ", ")
}

func TestExplainTellsEachRule(t *testing.T) {
	cfg := native()
	cfg.Out = lines(t, "allow any 10.9.0.1", "allow any any tcp 443", "deny any 10.9.0.0/24", "allow")
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	e, err := w.r.Explain(Query{Vassal: "blog", Addr: shop, Proto: protoTCP, Port: 5432})
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Name: "source", Result: "pass", Why: "10.9.0.7 is blog's", About: "blog"},
		{Name: "chain out", Result: "deny", Rules: []Considered{
			{Number: 1, Why: "destination is 10.9.0.8", RulePlace: RulePlace{"allow any 10.9.0.1", "emperor.ini", 10}},
			{Number: 2, Why: "port is 5432", RulePlace: RulePlace{"allow any any tcp 443", "emperor.ini", 11}},
			{Number: 3, Hit: true, RulePlace: RulePlace{"deny any 10.9.0.0/24", "emperor.ini", 12}},
		}},
	}
	if !reflect.DeepEqual(e.Steps, want) {
		t.Errorf("%+v\nwant %+v", e.Steps, want)
	}
}

// A vassal that has not sent anything yet, and one that may have any address.
func TestExplainBeforeRegistration(t *testing.T) {
	w := newWorld(t, native())
	w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	w.handOver(Handover{Vassal: "shop"})
	for _, q := range []Query{
		{Vassal: "blog", Addr: internet, Proto: protoTCP, Port: 80},
		{Vassal: "shop", Addr: internet, Proto: protoTCP, Port: 80, From: shop},
	} {
		e, err := w.r.Explain(q)
		if err != nil || e.Verdict != "allow" || e.Steps[0].Name != "source" || e.Steps[0].Why == "" {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if _, err := w.r.Explain(Query{Vassal: "shop", Addr: internet, Proto: protoTCP, Port: 80}); err == nil {
		t.Error("it knows an address of a vassal that has none")
	}
	if _, err := w.r.Explain(Query{Vassal: "none", Addr: internet, Proto: protoTCP, Port: 80}); err == nil {
		t.Error("it knows a vassal that is not there")
	}
	if s := w.stats("blog"); len(s.Addresses) != 0 {
		t.Errorf("a question registered %v", s.Addresses)
	}
}

// trial is a router with two vassals whose rules change.
type trial struct {
	*world
	ends  map[string]*tuntest.End
	lives map[string]*Lifeline
	cfg   NetworkConfig
	rules map[string][]DeviceRule
}

func newTrial(t *testing.T) *trial {
	return &trial{world: newWorld(t, native()), ends: map[string]*tuntest.End{}, lives: map[string]*Lifeline{}}
}

var trialAddrs = map[string]netip.Addr{"blog": blog, "shop": shop}

// lay makes the world as cfg and rules say.
func (w *trial) lay() {
	if err := w.r.Update(w.cfg); err != nil {
		w.t.Fatal(err)
	}
	for name, a := range trialAddrs {
		if life := w.lives[name]; life != nil {
			life.Close()
		}
		h := Handover{Vassal: name, May: []netip.Prefix{single(a)}, Rules: w.rules[name], Registered: []netip.Addr{a}}
		var err error
		if w.ends[name], w.lives[name], err = w.tryHandOver(h); err != nil {
			w.t.Fatal(err)
		}
	}
}

// passes lets the router itself move a packet and looks who gets it.
func (w *trial) passes(from, to string, raw []byte) bool {
	frame := append(make([]byte, room), raw...)
	n := w.r.networks[0]
	if from == "" {
		w.on(n.shard, func() { n.shard.fromHost(n, frame) })
	} else {
		p := w.holder(trialAddrs[from])
		w.on(p.shard, func() { p.shard.fromPeer(p, frame) })
		if w.got(w.host, raw) {
			if to == "" {
				return true
			}
			w.on(n.shard, func() { n.shard.fromHost(n, frame) }) // the host's kernel forwards it
		}
	}
	return to != "" && w.got(w.ends[to], raw)
}

// got reports whether a packet waits at an end, answers aside.
func (w *trial) got(end *tuntest.End, raw []byte) bool {
	for {
		b, err := end.Read(time.Millisecond)
		if err != nil {
			return false
		}
		if bytes.Equal(b, raw) {
			return true
		}
	}
}

func drawTrial(t *rapid.T, w *trial) {
	w.cfg = native()
	w.cfg.Isolate, w.cfg.Direct = rapid.Bool().Draw(t, "isolate"), rapid.Bool().Draw(t, "direct")
	w.cfg.File, w.cfg.Line = "emperor.ini", 1
	line := 10
	rule := func() firewall.Rule {
		line++
		r := firewall.Rule{
			Action: firewall.Action(rapid.IntRange(0, 2).Draw(t, "action")), File: "emperor.ini", Line: line,
			Src: rapid.SampledFrom(prefixes("0.0.0.0/0", "10.9.0.7/32", "10.9.0.0/16", "198.51.100.0/24")).Draw(t, "src"),
			Dst: rapid.SampledFrom(prefixes("0.0.0.0/0", "10.9.0.8/32", "10.9.0.7/32", "10.9.0.0/16", "198.51.100.0/24")).Draw(t, "dst"),
		}
		if r.Proto = rapid.SampledFrom([]uint8{0, 0, protoTCP, protoUDP, protoICMP}).Draw(t, "rule proto"); firewall.HasPorts(r.Proto) && rapid.Bool().Draw(t, "ports") {
			r.Ports = []firewall.PortRange{{First: 80, Last: uint16(rapid.IntRange(80, 90).Draw(t, "last"))}}
		}
		return r
	}
	for range rapid.IntRange(0, 3).Draw(t, "out rules") {
		w.cfg.Out = append(w.cfg.Out, rule())
	}
	for range rapid.IntRange(0, 3).Draw(t, "in rules") {
		w.cfg.In = append(w.cfg.In, rule())
	}
	w.rules = map[string][]DeviceRule{}
	for _, name := range []string{"blog", "shop"} {
		for range rapid.IntRange(0, 2).Draw(t, name+"'s rules") {
			r := rule()
			r.Proto, r.Ports, r.File = 0, nil, name+".ini"
			dir := rapid.SampledFrom([]firewall.Direction{firewall.Out, firewall.In}).Draw(t, "direction")
			w.rules[name] = append(w.rules[name], DeviceRule{Direction: dir, Rule: r})
		}
	}
}

func drawQuery(t *rapid.T) (q Query, from, to string) {
	q = Query{
		Vassal: "blog", Direction: rapid.SampledFrom([]firewall.Direction{firewall.Out, firewall.In}).Draw(t, "query direction"),
		Proto: rapid.SampledFrom([]uint8{protoTCP, protoUDP, protoICMP, 47}).Draw(t, "proto"),
		Addr:  rapid.SampledFrom([]netip.Addr{shop, internet, gateway, netip.MustParseAddr("10.9.7.7"), netip.MustParseAddr("192.168.1.1")}).Draw(t, "addr"),
	}
	if firewall.HasPorts(q.Proto) {
		q.Port = uint16(rapid.IntRange(79, 91).Draw(t, "port"))
	}
	other := ""
	if q.Addr == shop {
		other = "shop"
	}
	if q.Direction == firewall.In {
		return q, other, "blog"
	}
	if rapid.IntRange(0, 5).Draw(t, "spoof") == 0 {
		q.From = rapid.SampledFrom([]netip.Addr{shop, internet, gateway, netip.MustParseAddr("10.9.1.1")}).Draw(t, "from")
	}
	return q, "blog", other
}

// What Explain says is what the router does, and the lines that it tells to
// write make the router do the opposite.
func TestExplainIsTheRouter(t *testing.T) {
	w := newTrial(t)
	rapid.Check(t, func(t *rapid.T) {
		drawTrial(t, w)
		w.lay()
		q, from, to := drawQuery(t)
		e, err := w.r.Explain(q)
		if err != nil {
			t.Fatal(err)
		}
		raw := firstPacket(e.Src, e.Dst, q.Proto, q.Port)
		if passes := w.passes(from, to, raw); passes != (e.Verdict == "allow") {
			t.Fatalf("passes: %v, said to: %+v", passes, e)
		}
		if len(e.Changes) == 0 {
			if e.Advice == "" {
				t.Fatalf("neither a change nor advice: %+v", e)
			}
			return
		}
		for _, c := range e.Changes {
			w.apply(t, c)
		}
		w.lay()
		if passes := w.passes(from, to, raw); passes == (e.Verdict == "allow") {
			t.Fatalf("it still does: %+v", e)
		}
	})
}

// apply writes a line as its reader would.
func (w *trial) apply(t *rapid.T, c Change) {
	option, value, _ := strings.Cut(c.Text, " = ")
	if option == "tuntap-device-rule" {
		r, err := ParseDeviceRule(value)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(c.File, ".ini")
		i := slices.IndexFunc(w.rules[name], func(r DeviceRule) bool { return r.Rule.Line == c.Line })
		r.Rule.File, r.Rule.Line = c.File, c.Line
		w.rules[name] = slices.Insert(w.rules[name], i, r)
		return
	}
	r, err := firewall.ParseRule(value)
	if err != nil {
		t.Fatal(err)
	}
	rules := &w.cfg.Out
	if option == "tuntap-router-firewall-in" {
		rules = &w.cfg.In
	}
	i := 0
	if c.Before {
		i = slices.IndexFunc(*rules, func(r firewall.Rule) bool { return r.Line == c.Line })
	}
	r.File, r.Line = c.File, c.Line
	*rules = slices.Insert(*rules, i, r)
}

func TestExplainChangesNothing(t *testing.T) {
	w := newTrial(t)
	w.cfg = isolated()
	w.cfg.Out = lines(t, "allow any any tcp 443", "deny any 203.0.113.0/24")
	w.lay()
	before := w.r.Snapshot()
	for _, a := range []netip.Addr{shop, internet, netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("10.9.7.7")} {
		for _, from := range []netip.Addr{{}, shop, gateway} {
			if _, err := w.r.Explain(Query{Vassal: "blog", Addr: a, Proto: protoTCP, Port: 443, From: from}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := w.r.Snapshot(); !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	select {
	case h := <-w.events:
		if h.what == "refused" {
			t.Errorf("an event: %+v", h)
		}
	default:
	}
}

// Where no rule is written yet, the line goes below the network's own.
func TestExplainWithoutRules(t *testing.T) {
	cfg := native()
	cfg.File, cfg.Line = "emperor.ini", 3
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	for dir, want := range map[firewall.Direction]string{
		firewall.In:  "after emperor.ini:3 tuntap-router-firewall-in = deny 198.51.100.7 10.9.0.7 icmp",
		firewall.Out: "after emperor.ini:3 tuntap-router-firewall-out = deny 10.9.0.7 198.51.100.7 icmp",
	} {
		e, err := w.r.Explain(Query{Vassal: "blog", Direction: dir, Addr: internet, Proto: protoICMP})
		if err != nil || told(e.Changes) != want {
			t.Errorf("%v, %v", e, err)
		}
	}
}
