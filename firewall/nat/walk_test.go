package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestWalk(t *testing.T) {
	visitor := probe{
		in: "eth0", out: "fief0", src: netip.MustParsePrefix("0.0.0.0/0"), dst: netip.MustParsePrefix("10.9.0.7/32"),
		proto: "tcp", port: 8000, asked: 8080, dnat: true,
	}
	some := visitor
	some.src = netip.MustParsePrefix("203.0.113.0/24")
	tests := []struct {
		name  string
		p     probe
		rules string // of the chain FORWARD with the policy DROP, and others
		want  string // the target
		rule  string // a part of the line that decides; "" for the policy
		maybe int    // rules that may decide otherwise for some
	}{
		{"empty", visitor, "", "DROP", "-P FORWARD", 0},
		{"accepted", visitor, "-A FORWARD -j ACCEPT", "ACCEPT", "-j ACCEPT", 0},
		{"other device", visitor, "-A FORWARD -i eth1 -j ACCEPT", "DROP", "-P", 0},
		{"not another device", visitor, "-A FORWARD ! -i eth1 -j ACCEPT", "ACCEPT", "", 0},
		{"devices with a start", visitor, "-A FORWARD -i eth+ -o fief+ -j ACCEPT", "ACCEPT", "", 0},
		{"destination", visitor, "-A FORWARD -d 10.9.0.0/16 -p tcp -m tcp --dport 8000:8010 -j ACCEPT", "ACCEPT", "", 0},
		{"not the destination", visitor, "-A FORWARD ! -d 10.9.0.0/16 -j ACCEPT", "DROP", "-P", 0},
		{"the port before translation", visitor, "-A FORWARD -p tcp -m conntrack --ctorigdstport 8080 -j ACCEPT", "ACCEPT", "", 0},
		{"one port of many", visitor, "-A FORWARD -p tcp -m multiport --dports 22,8000 -j ACCEPT", "ACCEPT", "", 0},
		{"other ports", visitor, "-A FORWARD -p tcp -m multiport --dports 22,8001 -j ACCEPT", "DROP", "-P", 0},
		{"other protocol", visitor, "-A FORWARD -p udp -m udp --dport 8000 -j ACCEPT", "DROP", "-P", 0},
		{"what begins", visitor, "-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT", "ACCEPT", "", 0},
		{"odd flags", visitor, "-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP\n-A FORWARD -j ACCEPT", "ACCEPT", "", 0},
		{"answers only", visitor, "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "DROP", "-P", 0},
		{"what is translated", visitor, "-A FORWARD -m conntrack --ctstatus DNAT -j ACCEPT", "ACCEPT", "", 0},
		{"what is not translated", visitor, "-A FORWARD -m conntrack ! --ctstate DNAT -j DROP\n-A FORWARD -j ACCEPT", "ACCEPT", "", 0},
		{"one source of all", visitor, "-A FORWARD -s 203.0.113.0/24 -j ACCEPT", "DROP", "-P", 1},
		{"all but one source", visitor, "-A FORWARD ! -s 203.0.113.0/24 -j ACCEPT", "DROP", "-P", 1},
		{"the very source", some, "-A FORWARD -s 203.0.113.0/24 -j ACCEPT", "ACCEPT", "", 0},
		{"something unknown", visitor, "-A FORWARD -m mark --mark 0x7 -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable", "REJECT", "-j REJECT", 1},
		{"the log", visitor, "-A FORWARD -m limit --limit 3/min -j LOG --log-prefix \"[UFW BLOCK] \"\n-A FORWARD -j ACCEPT", "ACCEPT", "", 0},
		{"counted", visitor, "-A FORWARD -i eth0\n-A FORWARD -j ACCEPT", "ACCEPT", "", 0},
		{"a comment", visitor, "-A FORWARD -m comment --comment \"it's -j DROP\" -j ACCEPT", "ACCEPT", "", 0},
		{"another chain, and back", visitor, "-N user\n-A FORWARD -j user\n-A FORWARD -j ACCEPT\n-A user -i eth1 -j DROP", "ACCEPT", "-A FORWARD", 0},
		{"decided in another chain", visitor, "-N user\n-A FORWARD -j user\n-A FORWARD -j ACCEPT\n-A user -i eth0 -j DROP", "DROP", "-A user", 0},
		{"returned", visitor, "-N user\n-A FORWARD -j user\n-A FORWARD -j ACCEPT\n-A user -j RETURN\n-A user -j DROP", "ACCEPT", "", 0},
		{"gone to, and not back", visitor, "-N user\n-A FORWARD -g user\n-A FORWARD -j ACCEPT\n-A user -i eth1 -j ACCEPT", "DROP", "-P", 0},
		{"returned from FORWARD", visitor, "-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT", "DROP", "-P", 0},
		{"a chain for some", visitor, "-N user\n-A FORWARD -s 203.0.113.0/24 -j user\n-A user -j ACCEPT", "DROP", "-P", 1},
		{"a chain without end", visitor, "-N user\n-A FORWARD -j user\n-A user -j user", "DROP", "-P", 0},
		{"half a rule", visitor, "-A FORWARD\n-A\n-A FORWARD \"\n-A FORWARD -j ACCEPT", "ACCEPT", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := parseTable(append([]string{"-P FORWARD DROP"}, strings.Split(tt.rules, "\n")...))
			got := table.walk("FORWARD", &tt.p)
			if got.target != tt.want || !strings.Contains(got.rule, tt.rule) || len(got.unless) != tt.maybe {
				t.Errorf("%s by %q, %q for some; want %s by %q, and %d", got.target, got.rule, got.unless, tt.want, tt.rule, tt.maybe)
			}
		})
	}
}

// Chains that lead to many others are not followed for ever.
func TestWalkEnds(t *testing.T) {
	lines := []string{"-P FORWARD DROP", "-A FORWARD -j c0"}
	for i := range 20 {
		lines = append(lines, fmt.Sprintf("-N c%d", i))
		for range 9 {
			lines = append(lines, fmt.Sprintf("-A c%d -j c%d", i, i+1))
		}
	}
	if got := parseTable(lines).walk("FORWARD", &probe{proto: "tcp"}); got.target != "" || got.passed > maxPassed+1 {
		t.Errorf("%+v", got)
	}
}

// Whatever other people's rules are, looking at them does no harm.
func FuzzWalk(f *testing.F) {
	f.Add("-P FORWARD DROP\n-N user\n-A FORWARD ! -i eth+ -s 10.0.0.0/8 -p tcp -m tcp --dport 1:9 -m comment --comment \"a b\" -g user\n-A user -j RETURN")
	f.Add("-A FORWARD -j DNAT --to-destination [fd00::7]:80-90/8080\n-A FORWARD -p udp -m udp --dport 53 -j DNAT --to-destination 10.9.0.7")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 10_000 {
			t.Skip("nothing new in a long text")
		}
		table := parseTable(strings.Split(text, "\n"))
		p := probe{
			in: "eth0", out: "fief0", src: netip.MustParsePrefix("0.0.0.0/0"), dst: netip.MustParsePrefix("10.9.0.7/32"),
			proto: "tcp", port: 8000, asked: 8080, dnat: true,
		}
		d := table.walk("FORWARD", &p)
		if d.passed > maxPassed+1 {
			t.Errorf("%d rules passed", d.passed)
		}
		for _, rules := range table.chains {
			for _, r := range rules {
				one, ok := r.published(false)
				if ok && (!one.To.IsValid() || one.Proto == 0) {
					t.Errorf("read %+v of %q", one, r.line)
				}
			}
		}
	})
}
