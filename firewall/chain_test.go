package firewall

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func mustRules(t testing.TB, texts ...string) []Rule {
	t.Helper()
	rules := make([]Rule, len(texts))
	for i, s := range texts {
		var err error
		if rules[i], err = ParseRule(s); err != nil {
			t.Fatal(err)
		}
	}
	return rules
}

func flow(src, dst string, proto uint8, dport uint16) *Flow {
	return &Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, HasPorts: hasPorts(proto), DstPort: dport}
}

func TestChainVerdict(t *testing.T) {
	rules := mustRules(t,
		"allow 10.9.0.1 any",            // 0
		"deny 10.9.0.0/16 10.9.0.0/16",  // 1
		"reject any any tcp 25,100-200", // 2
		"deny ::ffff:0:0/96 any",        // 3
		"deny fd00::/8 ::",              // 4
		"allow any any udp 53",          // 5
		"deny any any udp",              // 6
		"deny 0.0.0.0 203.0.113.5",      // 7
	)
	tests := []struct {
		name   string
		flow   *Flow
		action Action
		index  int
	}{
		{"first wins", flow("10.9.0.1", "10.9.0.2", protoTCP, 25), Allow, 0},
		{"prefix", flow("10.9.0.2", "10.9.255.255", protoICMP, 0), Deny, 1},
		{"outside the prefix", flow("10.9.0.2", "10.10.0.0", protoICMP, 0), Allow, -1},
		{"port", flow("10.9.0.2", "8.8.8.8", protoTCP, 25), Reject, 2},
		{"start of the range", flow("10.9.0.2", "8.8.8.8", protoTCP, 100), Reject, 2},
		{"end of the range", flow("10.9.0.2", "8.8.8.8", protoTCP, 200), Reject, 2},
		{"past the range", flow("10.9.0.2", "8.8.8.8", protoTCP, 201), Allow, -1},
		{"ports of both families", flow("2001:db8::1", "2001:db8::2", protoTCP, 25), Reject, 2},
		{"IPv4-mapped is IPv6", flow("::ffff:10.9.0.2", "::ffff:10.9.0.3", protoICMP, 0), Deny, 3},
		{"IPv6 prefix", flow("fdff::1", "2001:db8::1", protoICMP6, 0), Deny, 4},
		{"outside the IPv6 prefix", flow("fe00::1", "2001:db8::1", protoICMP6, 0), Allow, -1},
		{"udp 53", flow("10.9.0.2", "8.8.8.8", protoUDP, 53), Allow, 5},
		{"udp else", flow("10.9.0.2", "8.8.8.8", protoUDP, 54), Deny, 6},
		{"any IPv4", flow("198.51.100.1", "203.0.113.5", protoICMP, 0), Deny, 7},
		{"any IPv4 is not IPv6", flow("2001:db8::1", "::ffff:203.0.113.5", protoICMP6, 0), Allow, -1},
		{"two families are no packet", flow("10.9.0.1", "fd00::1", protoTCP, 1), Deny, -1},
		{"no addresses are no packet", &Flow{}, Deny, -1},
		{"unseen ports reach a reject", &Flow{Src: netip.MustParseAddr("10.9.0.2"), Dst: netip.MustParseAddr("8.8.8.8"), Proto: protoTCP}, Reject, 2},
		{"unseen ports do not reach an allow", &Flow{Src: netip.MustParseAddr("10.9.0.2"), Dst: netip.MustParseAddr("8.8.8.8"), Proto: protoUDP}, Deny, 6},
	}
	chain := NewChain(rules)
	want := make([]uint64, len(rules))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			action, index := chain.Verdict(tt.flow)
			if action != tt.action || index != tt.index {
				t.Errorf("got %v by rule %d, want %v by rule %d", action, index, tt.action, tt.index)
			}
		})
		if tt.index >= 0 {
			want[tt.index]++
		}
	}
	if got := chain.HitsSnapshot(); !slices.Equal(got, want) {
		t.Errorf("hits %v, want %v", got, want)
	}
}

func TestChainNilAndEmpty(t *testing.T) {
	f := flow("10.0.0.1", "10.0.0.2", protoTCP, 80)
	for name, c := range map[string]*Chain{"nil": nil, "empty": NewChain(nil)} {
		if action, index := c.Verdict(f); action != Allow || index != -1 {
			t.Errorf("%s chain: %v by rule %d", name, action, index)
		}
		if len(c.Rules()) != 0 || len(c.HitsSnapshot()) != 0 {
			t.Errorf("%s chain has rules", name)
		}
	}
}

func TestChainIsImmutable(t *testing.T) {
	rules := mustRules(t, "deny any any tcp 80")
	c := NewChain(rules)
	rules[0].Ports[0] = PortRange{81, 81}
	rules[0].Action = Allow
	if action, _ := c.Verdict(flow("10.0.0.1", "10.0.0.2", protoTCP, 80)); action != Deny {
		t.Error("a change to the caller's slice changed the chain")
	}
	if c.Rules()[0].String() != "deny any any tcp 80" {
		t.Errorf("rule is now %v", c.Rules()[0])
	}
}

func TestChainUnknownActionDenies(t *testing.T) {
	if action, _ := NewChain([]Rule{{Action: 9}}).Verdict(flow("10.0.0.1", "10.0.0.2", 1, 0)); action != Deny {
		t.Errorf("action 9 gives %v", action)
	}
}

func TestChainConcurrentHits(t *testing.T) {
	c := NewChain(mustRules(t, "allow 10.0.0.0/8 any", "deny any any"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				c.Verdict(flow("10.0.0.1", "10.0.0.2", protoTCP, 80))
				c.Verdict(flow("192.0.2.1", "10.0.0.2", protoTCP, 80))
			}
		})
	}
	wg.Wait()
	if c.Hits(0) != 4000 || c.Hits(1) != 4000 {
		t.Errorf("hits %v, want 4000 each", c.HitsSnapshot())
	}
}

func TestVerdictDoesNotAllocate(t *testing.T) {
	c := NewChain(mustRules(t, "deny 10.1.0.0/16 any", "allow any any udp 53", "deny fd00::/8 any tcp 22"))
	for name, f := range map[string]*Flow{
		"IPv4": flow("10.9.0.1", "8.8.8.8", protoUDP, 53),
		"IPv6": flow("fd00::1", "2001:db8::1", protoTCP, 22),
	} {
		if n := testing.AllocsPerRun(1000, func() { c.Verdict(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// naive is the meaning of a chain, said as plainly as possible.
func naive(rules []Rule, f *Flow) (Action, int) {
	in := func(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }
	for i, r := range rules {
		port := len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p PortRange) bool { return p.First <= f.DstPort && f.DstPort <= p.Last })
		if !f.HasPorts && len(r.Ports) > 0 {
			port = r.Action != Allow
		}
		if in(r.Src, f.Src) && in(r.Dst, f.Dst) && (r.Proto == 0 || r.Proto == f.Proto) && port {
			return r.Action, i
		}
	}
	return Allow, -1
}

// Few distinct addresses, protocols and ports, so that rules do match.
func genAddr(t *rapid.T, v4 bool, name string) netip.Addr {
	low := byte(rapid.IntRange(0, 5).Draw(t, name))
	if v4 {
		return netip.AddrFrom4([4]byte{10, 9, low / 3, low})
	}
	a := [16]byte{0: 0xfd, 15: low}
	if rapid.Bool().Draw(t, name+" mapped") {
		a = netip.AddrFrom4([4]byte{10, 9, low / 3, low}).As16()
	}
	return netip.AddrFrom16(a)
}

func genPrefix(t *rapid.T, v4 bool, name string) netip.Prefix {
	if rapid.IntRange(0, 3).Draw(t, name+" any") == 0 {
		return netip.Prefix{}
	}
	a := genAddr(t, v4, name)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, name+" bits"))
}

func genRule(t *rapid.T) Rule {
	v4 := rapid.Bool().Draw(t, "rule v4")
	r := Rule{
		Action: Action(rapid.IntRange(0, 2).Draw(t, "action")),
		Src:    genPrefix(t, v4, "rule src"),
		Dst:    genPrefix(t, v4, "rule dst"),
		Proto:  rapid.SampledFrom([]uint8{0, 0, 1, 6, 17, 58}).Draw(t, "rule proto"),
	}
	if hasPorts(r.Proto) {
		for range rapid.IntRange(0, 2).Draw(t, "ports") {
			first := uint16(rapid.IntRange(0, 9).Draw(t, "first"))
			r.Ports = append(r.Ports, PortRange{first, first + uint16(rapid.IntRange(0, 3).Draw(t, "width"))})
		}
	}
	return r
}

func genFlow(t *rapid.T) *Flow {
	v4 := rapid.Bool().Draw(t, "v4")
	f := &Flow{
		Src: genAddr(t, v4, "src"), Dst: genAddr(t, v4, "dst"),
		Proto:   rapid.SampledFrom([]uint8{1, 6, 17, 58}).Draw(t, "proto"),
		DstPort: uint16(rapid.IntRange(0, 12).Draw(t, "port")),
	}
	f.HasPorts = hasPorts(f.Proto) && rapid.IntRange(0, 9).Draw(t, "seen") > 0
	return f
}

func TestChainIsTheNaiveMatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(genRule), 0, 12).Draw(t, "rules")
		chain := NewChain(rules)
		for range 20 {
			f := genFlow(t)
			wantAction, wantIndex := naive(rules, f)
			if action, index := chain.Verdict(f); action != wantAction || index != wantIndex {
				t.Fatalf("%+v: %v by rule %d, want %v by rule %d of %v", f, action, index, wantAction, wantIndex, rules)
			}
		}
	})
}

// Rules that stay go on counting, wherever they stand now.
func TestResume(t *testing.T) {
	old := NewChain(mustRules(t, "deny any 10.0.0.1", "deny any 10.0.0.2", "deny any 10.0.0.2"))
	ask := func(c *Chain, dst string) {
		c.Verdict(&Flow{Src: netip.MustParseAddr("10.9.0.7"), Dst: netip.MustParseAddr(dst), Proto: 17})
	}
	ask(old, "10.0.0.1")
	for range 3 {
		ask(old, "10.0.0.2")
	}
	next := NewChain(mustRules(t, "deny any 10.0.0.2", "allow any 10.0.0.1", "deny any 10.0.0.1"))
	next.Resume(old)
	ask(next, "10.0.0.2")
	ask(old, "10.0.0.2") // a thread that has not seen the new one yet
	if got := next.HitsSnapshot(); !slices.Equal(got, []uint64{5, 0, 1}) {
		t.Errorf("hits %v; want 5, 0, 1", got)
	}
	none := (*Chain)(nil)
	none.Resume(old)
	next.Resume(nil)
}
