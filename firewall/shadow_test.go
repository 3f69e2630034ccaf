package firewall

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestShadowed(t *testing.T) {
	tests := []struct {
		name  string
		rules []string
		want  []Shadow
	}{
		{"nothing", nil, nil},
		{"a lone action", []string{"deny", "allow any 10.9.0.1", "allow"}, []Shadow{{1, []int{0}}, {2, []int{0}}}},
		{"the same twice", []string{"allow any 10.9.0.1 tcp 443", "deny any 10.9.0.1 tcp 443"}, []Shadow{{1, []int{0}}}},
		{"a wider prefix", []string{"deny any 10.9.0.0/24", "allow any 10.9.0.3"}, []Shadow{{1, []int{0}}}},
		{"a narrower prefix", []string{"allow any 10.9.0.3", "deny any 10.9.0.0/24"}, nil},
		{"two halves", []string{"deny any 10.0.0.0/9", "allow any 10.128.0.0/9", "deny any 10.0.0.0/8"}, []Shadow{{2, []int{0, 1}}}},
		{"all but one address", []string{"deny any 10.9.0.0/31", "deny any 10.9.0.2", "allow any 10.9.0.0/30"}, nil},
		{"both families, one covered", []string{"deny 0.0.0.0/0 any", "allow any any tcp 80"}, nil},
		{"both families, both covered", []string{"deny 0.0.0.0 any", "deny :: any", "allow any any tcp 80"}, []Shadow{{2, []int{0, 1}}}},
		{"ports piece by piece", []string{"allow any any tcp 1-79,81-100", "allow any any tcp 80", "allow any any tcp 70-90"}, []Shadow{{2, []int{0, 1}}}},
		{"all ports", []string{"allow any any tcp 0-65535", "deny any any tcp"}, []Shadow{{1, []int{0}}}},
		{"another protocol", []string{"deny any any udp", "allow any any tcp 53"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Shadowed(nil, mustRules(t, tt.rules...)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestPortsOfAnyProtocol(t *testing.T) { // which no text can say
	port := []PortRange{{80, 80}}
	for name, tt := range map[string]struct {
		rules []Rule
		dead  bool
	}{
		"tcp, denied":    {[]Rule{{Action: Deny, Ports: port}, {Proto: protoTCP, Ports: port}}, true},
		"tcp, all ports": {[]Rule{{Action: Deny, Ports: port}, {Proto: protoTCP}}, false},
		"icmp, denied":   {[]Rule{{Action: Deny, Ports: port}, {Proto: protoICMP}}, true},
		"icmp, allowed":  {[]Rule{{Action: Allow, Ports: port}, {Proto: protoICMP}}, false},
	} {
		if got := Shadowed(nil, tt.rules); (len(got) == 1) != tt.dead {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRuleOfTwoFamiliesMatchesNothing(t *testing.T) {
	rules := []Rule{{Src: netip.MustParsePrefix("10.0.0.0/8"), Dst: netip.MustParsePrefix("fd00::/8")}}
	if got := Shadowed(nil, rules); len(got) != 1 || len(got[0].By) != 0 {
		t.Errorf("%v", got)
	}
}

// What a rule's sides are made of begins and ends somewhere: two flows between
// which nothing begins or ends are the same to all rules. So it is enough to try
// one flow of each kind.
func TestShadowedIsBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOfN(rapid.Custom(genRule), 0, 2).Draw(t, "before")
		rules := rapid.SliceOfN(rapid.Custom(genRule), 1, 4).Draw(t, "rules")
		all := slices.Concat(before, rules)
		said := map[int]Shadow{}
		for _, s := range Shadowed(before, rules) {
			said[s.Rule] = s
		}
		decides := make([]bool, len(rules))
		forEachKind(all, func(f *Flow) {
			act, _ := naive(before, f)
			if _, first := naive(rules, f); act == Allow && first >= 0 {
				decides[first] = true
			}
			for i, s := range said {
				_, matches := naive(rules[i:i+1], f)
				instead := slices.ContainsFunc(s.By, func(k int) bool {
					_, other := naive(all[k:k+1], f)
					return other == 0 && k < len(before)+i && (k >= len(before) || all[k].Action != Allow)
				})
				if matches == 0 && !instead {
					t.Fatalf("%+v of rule %d is not for %v of %v after %v", f, i, s.By, rules, before)
				}
			}
		})
		for i := range rules {
			if _, dead := said[i]; dead == decides[i] {
				t.Fatalf("rule %d decides: %v, said to be shadowed: %v; of %v after %v", i, decides[i], dead, rules, before)
			}
		}
	})
}

// forEachKind calls fn with a flow of each kind that rules can tell apart.
func forEachKind(rules []Rule, fn func(*Flow)) {
	var src, dst []netip.Addr
	protos, ports := []uint8{0, protoICMP, protoTCP}, []int{0}
	for _, every := range everyPrefix {
		src, dst = append(src, every.Addr()), append(dst, every.Addr())
	}
	for _, r := range rules {
		src, dst = append(src, edges(r.Src)...), append(dst, edges(r.Dst)...)
		protos = append(protos, r.Proto, r.Proto+1)
		for _, p := range r.Ports {
			ports = append(ports, int(p.First), int(p.Last)+1)
		}
	}
	distinct := func(list []netip.Addr) []netip.Addr {
		slices.SortFunc(list, netip.Addr.Compare)
		return slices.Compact(list)
	}
	slices.Sort(protos)
	slices.Sort(ports)
	src, dst, protos, ports = distinct(src), distinct(dst), slices.Compact(protos), slices.Compact(ports)
	for _, s := range src {
		for _, d := range dst {
			if s.Is4() != d.Is4() {
				continue
			}
			for _, proto := range protos {
				for _, port := range ports {
					fn(&Flow{Src: s, Dst: d, Proto: proto, HasPorts: hasPorts(proto), DstPort: uint16(port)})
				}
			}
		}
	}
}

// edges are the first address of a prefix, and the first behind it.
func edges(p netip.Prefix) []netip.Addr {
	if !p.IsValid() {
		return nil
	}
	first := p.Masked().Addr()
	last := first.AsSlice()
	for bit := p.Bits(); bit < first.BitLen(); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	if next := a.Next(); next.IsValid() {
		return []netip.Addr{first, next}
	}
	return []netip.Addr{first}
}

func TestShadowedGivesUp(t *testing.T) {
	// Each of these rules leaves 256 pieces or so of the last one.
	var rules []Rule
	for i := range 12 {
		a := netip.AddrFrom16([16]byte{0: byte(0x10 * i), 1: 1, 15: 1})
		rules = append(rules, Rule{Src: single(a), Dst: single(a)})
	}
	rules = append(rules, Rule{})
	if got := Shadowed(nil, rules); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
