package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeOf is the nat table that a list makes.
func treeOf(list []Published, v6 bool) *table {
	var lines []string
	sides := []side{{device: "fief0", gateways: addrs(gate4, gate6)[:1]}}
	for _, c := range buildChains("fiefdom-test", &plan{v6: v6, sides: sides, published: list}) {
		if c.table != "nat" {
			continue
		}
		lines = append(lines, "-N "+c.name)
		if c.hook != "" {
			lines = append(lines, "-P "+c.hook+" ACCEPT", "-A "+c.hook+" "+c.jump())
		}
		for _, r := range c.rules {
			lines = append(lines, "-A "+c.name+" "+r)
		}
	}
	return parseTable(lines)
}

// arrive asks the table about a packet for an address of the host.
func arrive(t *table, hook string, src, dst netip.Addr, proto string, port uint16) decision {
	return t.walk(hook, &probe{
		src: netip.PrefixFrom(src, src.BitLen()), dst: netip.PrefixFrom(dst, dst.BitLen()), proto: proto, port: port,
	})
}

// The tree decides as the list does, one entry after the other, and a packet
// passes some tens of rules at most.
func TestDispatch(t *testing.T) {
	host, loop, far := netip.MustParseAddr(host4), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(inet4)
	span := func(n int, width uint16) func(*rand.Rand) []Published {
		return func(rnd *rand.Rand) (list []Published) {
			next := uint16(1000)
			for range n {
				p := port("0.0.0.0", next, next+uint16(rnd.IntN(int(width))), pool4+":1")
				p.To = netip.AddrPortFrom(p.To.Addr(), 1+uint16(rnd.IntN(1000)))
				switch rnd.IntN(8) {
				case 0:
					p.Host = host
				case 1:
					p.Host = loop
				case 2:
					p.From = prefixes(inet4+"/32", "203.0.113.0/24")
				case 3:
					p.From = prefixes("203.0.113.0/24", "192.0.2.128/25", "198.51.100.128/25", inet4+"/32")
				}
				if rnd.IntN(3) == 0 {
					p.Proto = unix.IPPROTO_UDP
				}
				list = append(list, p)
				next = p.Last + 1 + uint16(rnd.IntN(9))
			}
			return list
		}
	}
	tests := []struct {
		name string
		list func(*rand.Rand) []Published
		most int // rules that a packet passes
	}{
		{"none", span(0, 1), 0},
		{"one", span(1, 1), 3},
		{"few", span(12, 1), 20},
		{"some", span(60, 1), 32},
		{"1,000", span(1000, 1), 64},
		{"3,000 ranges", span(3000, 20), 72},
		{"wide ranges", span(20, 3000), 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			list := tt.list(rnd)
			tree := treeOf(list, false)
			most := 0
			for range 20_000 {
				dst, hook := host, "PREROUTING"
				switch rnd.IntN(4) {
				case 0:
					dst, hook = loop, "OUTPUT"
				case 1:
					dst, hook = host, "OUTPUT"
				case 2:
					dst, hook = loop, "PREROUTING" // a lie that comes by a wire
				}
				src, proto, asked := []netip.Addr{far, host}[rnd.IntN(2)], []string{"tcp", "udp"}[rnd.IntN(2)], uint16(rnd.IntN(8000))
				want := ""
				for _, p := range list {
					if p.protocol() == proto && p.leads(src, netip.AddrPortFrom(dst, asked)) && (dst != loop || hook == "OUTPUT") {
						want = "--to-destination " + p.target()
					}
				}
				got := arrive(tree, hook, src, dst, proto, asked)
				if want == "" && got.target == "DNAT" || want != "" && !strings.HasSuffix(got.rule, want) {
					t.Fatalf("%s %s port %d from %s to %s: %q, want %q", hook, proto, asked, src, dst, got.rule, want)
				}
				most = max(most, got.passed)
			}
			if most > tt.most {
				t.Errorf("a packet passes %d rules, want %d at most", most, tt.most)
			}
			t.Logf("%d rules at most", most)
		})
	}
}

func TestPublishedRules(t *testing.T) {
	tests := []struct {
		p    Published
		want string
	}{
		{port("0.0.0.0", 80, 80, "10.9.0.7:80"), "-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.0.7"},
		{port("0.0.0.0", 80, 80, "10.9.0.7:8000"), "-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.0.7:8000"},
		{port("192.0.2.1", 80, 89, "10.9.0.7:80").udp(), "-d 192.0.2.1 -p udp -m udp --dport 80:89 -j DNAT --to-destination 10.9.0.7"},
		{port("::", 80, 89, "[fd00::7]:8000"), "-p tcp -m tcp --dport 80:89 -j DNAT --to-destination [fd00::7]:8000-8009/80"},
		{port("::1", 80, 80, "[fd00::7]:80"), "-d ::1 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::7]"},
	}
	for _, tt := range tests {
		if got := tt.p.rules(); len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: %q, want %q", &tt.p, got, tt.want)
		}
	}
}

func TestPublishedCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Published)
		want   string // of the error; "" for none
	}{
		{"good", func(*Published) {}, ""},
		{"no address", func(p *Published) { p.Host = netip.Addr{} }, "not of the family"},
		{"other family", func(p *Published) { p.Host = netip.MustParseAddr("::") }, "not of the family"},
		{"mapped", func(p *Published) { p.Host = netip.MustParseAddr("::ffff:192.0.2.1") }, "not of the family"},
		{"zone", func(p *Published) {
			p.Host, p.To = netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddrPort("[fd00:9::7]:80")
		}, "not of the family"},
		{"port 0", func(p *Published) { p.First = 0 }, "cannot lead"},
		{"backwards", func(p *Published) { p.First = 9000 }, "cannot lead"},
		{"past the end", func(p *Published) { p.To = netip.AddrPortFrom(p.To.Addr(), 65530) }, "cannot lead"},
		{"protocol", func(p *Published) { p.Proto = 132 }, "protocol 132"},
		{"network", func(p *Published) { p.Device = "fief9" }, "no network fief9"},
		{"pool", func(p *Published) { p.To = netip.MustParseAddrPort("10.77.0.7:80") }, "not in the pool"},
		{"source of the other family", func(p *Published) { p.From = prefixes("2001:db8::/32") }, "2001:db8::/32"},
		{"mapped source", func(p *Published) { p.From = prefixes("::ffff:10.0.0.0/104") }, "is not of the family"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := port("0.0.0.0", 8080, 8090, "10.9.0.7:80")
			tt.change(&p)
			err := p.check(networks())
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// longLists is as much as vassals can publish to as many as they may, where that
// is in everybody's way.
func longLists() (list []Published) {
	for i := range 15 { // over the bounds of branches, of each level
		for _, at := range []uint16{uint16(i+1) << 12, uint16(i+1) << 8, uint16(i+1) << 4} {
			p := port("0.0.0.0", at-1, at, pool4+":1")
			for n := range 64 {
				p.From = append(p.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(i), byte(n)}), 32))
			}
			list = append(list, p)
		}
	}
	return list
}

// Long lists of who may come to a port cost those who ask for others' ports some
// rules at most.
func TestLongListsCostTheirOwn(t *testing.T) {
	list := longLists()
	list = append(list, port("0.0.0.0", 80, 80, pool4+":80"))
	tree := treeOf(list, false)
	got := arrive(tree, "PREROUTING", netip.MustParseAddr(inet4), netip.MustParseAddr(host4), "tcp", 80)
	if !strings.Contains(got.rule, "--dport 80 ") || got.passed > 112 { // 3×15 of these, and branches
		t.Errorf("port 80: %q after %d rules", got.rule, got.passed)
	}
	for addr, want := range map[string]string{"10.77.3.63": "DNAT", "10.77.3.64": "ACCEPT"} {
		if got := arrive(tree, "PREROUTING", netip.MustParseAddr(addr), netip.MustParseAddr(host4), "tcp", 4<<12); got.target != want {
			t.Errorf("from %s: %s by %q, want %s", addr, got.target, got.rule, want)
		}
	}
}

// A port 53 for all the host's addresses is not the one by which vassals ask
// their router for names.
func TestRoutersNamesAreNotPublished(t *testing.T) {
	tree := treeOf([]Published{port("0.0.0.0", 50, 60, "10.9.0.7:50").udp()}, false)
	for addr, want := range map[string]string{gate4: "ACCEPT", host4: "DNAT"} {
		if got := arrive(tree, "PREROUTING", netip.MustParseAddr(pool4), netip.MustParseAddr(addr), "udp", 53); got.target != want {
			t.Errorf("port 53 of %s: %s by %q, want %s", addr, got.target, got.rule, want)
		}
	}
	if got := arrive(tree, "PREROUTING", netip.MustParseAddr(pool4), netip.MustParseAddr(gate4), "udp", 54); got.target != "DNAT" {
		t.Errorf("port 54 of the router: %s by %q", got.target, got.rule)
	}
}

// More than there are names for still works.
func TestManyBuckets(t *testing.T) {
	var list []Published
	for i := range uint16(65535) {
		list = append(list, port("0.0.0.0", i+1, i+1, pool4+":80"))
		if i%2 == 0 {
			list = append(list, list[len(list)-1].udp())
		}
	}
	tree := treeOf(list, false)
	names := map[string]bool{}
	for name := range tree.chains {
		names[name] = true
		if strings.HasPrefix(name, "fiefdom-test-p") && name != "fiefdom-test-pre" && name != "fiefdom-test-post" && !isBucket("fiefdom-test", name) {
			t.Fatalf("chain %s", name)
		}
	}
	for _, asked := range []uint16{1, 4095, 4096, 32768, 65535} {
		want := fmt.Sprintf("--dport %d -j DNAT", asked)
		if got := arrive(tree, "PREROUTING", netip.MustParseAddr(inet4), netip.MustParseAddr(host4), "tcp", asked); !strings.Contains(got.rule, want) {
			t.Errorf("port %d: %q", asked, got.rule)
		}
	}
}
