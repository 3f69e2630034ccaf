package tuntap

import (
	"bytes"
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
