package tuntap

import (
	"net/netip"
	"strings"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

var (
	hostAddr   = netip.MustParseAddr("198.51.100.1")
	hostAddr6  = netip.MustParseAddr("2001:db8::1")
	otherPool  = netip.MustParsePrefix("10.10.0.0/16")
	otherApp   = netip.MustParseAddr("10.10.0.9")
	otherApp6  = netip.MustParseAddr("fd78::9")
	otherPool6 = netip.MustParsePrefix("fd78::/64")
	otherHost  = netip.MustParseAddr("10.10.0.1") // the other router's
)

// publishing is an isolated network of a host that publishes.
func publishing() NetworkConfig {
	cfg := isolated()
	cfg.Host = append(cfg.Host, otherHost)
	cfg.Strangers = []netip.Prefix{otherPool, otherPool6}
	cfg.Published = []Port{
		{Proto: protoTCP, First: 8080, Last: 8080},
		{Proto: protoTCP, First: 9000, Last: 9009},
		{Proto: protoTCP, First: 9005, Last: 9019},
		{Addr: hostAddr, Proto: protoUDP, First: 53, Last: 53},
		{Addr: netip.IPv6Unspecified(), Proto: protoTCP, First: 6000, Last: 6000},
		{Addr: netip.MustParseAddr("127.0.0.1"), Proto: protoTCP, First: 7000, Last: 7000},
	}
	return cfg
}

func TestIsolateLetsWhatIsPublishedPass(t *testing.T) {
	judgeAll(t, publishing(), []judged{
		{"at the host", tcp(blog, hostAddr, 8080, tuntest.SYN), false},
		{"at the host, IPv6", tcp(blog6, hostAddr6, 8080, tuntest.SYN), false},
		{"at the router's own address", tcp(blog, gateway, 8080, tuntest.SYN), false},
		{"at the router's own address, IPv6", tcp(blog6, gateway6, 8080, tuntest.SYN), false},
		{"at another network's router", tcp(blog, otherHost, 8080, tuntest.SYN), false},
		{"the port beside it", tcp(blog, hostAddr, 8081, tuntest.SYN), true},
		{"of the other protocol", udp(blog, hostAddr, 8080), true},
		{"first of a range", tcp(blog, hostAddr, 9000, tuntest.SYN), false},
		{"last of ranges that overlap", tcp(blog, hostAddr, 9019, tuntest.SYN), false},
		{"behind the range", tcp(blog, hostAddr, 9020, tuntest.SYN), true},
		{"before the range", tcp(blog, hostAddr, 8999, tuntest.SYN), true},
		{"at the one address", udp(blog, hostAddr, 53), false},
		{"at another than the one address", udp(blog, otherHost, 53), true},
		{"of IPv6 alone", tcp(blog6, hostAddr6, 6000, tuntest.SYN), false},
		{"of IPv6 alone, at IPv4", tcp(blog, hostAddr, 6000, tuntest.SYN), true},
		{"for the host's own programs alone", tcp(blog, hostAddr, 7000, tuntest.SYN), true},
		{"the same port of a neighbour", tcp(blog, shop, 8080, tuntest.SYN), true},
		{"the same port of a private address", tcp(blog, netip.MustParseAddr("192.168.7.7"), 8080, tuntest.SYN), true},
		{"the same port of a stranger", tcp(blog, otherApp, 8080, tuntest.SYN), true},
		{"the host by NAT64", tcp(blog6, netip.MustParseAddr("64:ff9b::198.51.100.1"), 8080, tuntest.SYN), true},
		{"no port", tuntest.Echo(blog, hostAddr, 1, 1), true},
	})
}

func TestNetworksAreStrangers(t *testing.T) {
	for _, isolate := range []bool{true, false} {
		cfg := publishing()
		cfg.Isolate = isolate
		w := newWorld(t, cfg)
		end := w.vassal("blog", blog)
		w.register6(end)
		w.judge(t, end, tcp(blog, otherApp, 80, tuntest.SYN), true, DropIsolate)
		w.judge(t, end, tcp(blog6, otherApp6, 80, tuntest.SYN), true, DropIsolate)
		w.judge(t, end, tuntest.Echo(blog, otherApp, 1, 1), true, DropIsolate)
		w.judge(t, end, udp(blog, otherApp, 53), true, DropIsolate)
		// What it answers, it does not begin.
		w.judge(t, end, tcp(blog, otherApp, 80, tuntest.SYN|tuntest.ACK), false, DropIsolate)
		w.host.Send(t, udp(otherApp, blog, 53))
		end.Receive(t)
		answer := tuntest.UDP(netip.AddrPortFrom(blog, 53), netip.AddrPortFrom(otherApp, 40000), []byte("answer"))
		w.judge(t, end, answer, false, DropIsolate)
		// Strangers are all that an open network keeps from.
		for _, packet := range [][]byte{
			udp(blog, netip.MustParseAddr("192.168.1.1"), 9),
			udp(blog, netip.MustParseAddr("239.1.1.1"), 9),
			tcp(blog, hostAddr, 22, tuntest.SYN),
		} {
			w.judge(t, end, packet, isolate, DropIsolate)
		}
	}
}

func TestOnlyARuleThatAllowsReachesStrangers(t *testing.T) {
	cfg := publishing()
	cfg.Isolate = false
	cfg.Out = []firewall.Rule{
		{Action: firewall.Deny, Dst: prefixes("203.0.113.0/24")[0]},
		{Action: firewall.Allow, Dst: single(otherApp), Proto: protoTCP, Ports: []firewall.PortRange{{First: 80, Last: 80}}},
	}
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	w.judge(t, end, tcp(blog, otherApp, 80, tuntest.SYN), false, DropIsolate)
	w.judge(t, end, tcp(blog, otherApp, 81, tuntest.SYN), true, DropIsolate)
}

func TestLoopbackIsNeverTheHosts(t *testing.T) {
	cfg := native() // no isolation
	cfg.Published = publishing().Published
	cfg.Out = []firewall.Rule{{Action: firewall.Allow}}
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	w.register6(end)
	for _, packet := range [][]byte{
		tcp(blog, netip.MustParseAddr("127.0.0.1"), 7000, tuntest.SYN),
		tcp(blog, netip.MustParseAddr("127.0.0.1"), 7000, tuntest.SYN|tuntest.ACK),
		udp(blog, netip.MustParseAddr("127.255.255.254"), 53),
		tuntest.Echo(blog, netip.MustParseAddr("127.0.0.2"), 1, 1),
		tcp(blog6, netip.IPv6Loopback(), 7000, tuntest.SYN),
	} {
		w.judge(t, end, packet, true, DropForbidden)
	}
	e, err := w.r.Explain(Query{Vassal: "blog", Addr: netip.MustParseAddr("127.0.0.1"), Proto: protoTCP, Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	if e.Verdict != "deny" || e.Reason != "forbidden" || !strings.Contains(e.Steps[len(e.Steps)-1].Why, "loopback") || !strings.Contains(e.Advice, "loopback") {
		t.Errorf("%+v", e)
	}
}

func TestExplainTellsOfStrangersAndWhatIsPublished(t *testing.T) {
	cfg := publishing()
	cfg.File, cfg.Line = "emperor.ini", 3
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	for _, c := range []struct {
		addr               netip.Addr
		port               uint16
		verdict, why, line string
	}{
		{hostAddr, 8080, "allow", "port 8080/tcp of 198.51.100.1 is published", ""},
		{hostAddr, 8081, "deny", "and what is published", "tuntap-router-firewall-out = allow 10.9.0.7 198.51.100.1 tcp 8081"},
		{otherApp, 8080, "deny", "strangers to each other", "tuntap-router-firewall-out = allow 10.9.0.7 10.10.0.9 tcp 8080"},
		{gateway, 53, "allow", "ping and DNS", ""},
	} {
		e, err := w.r.Explain(Query{Vassal: "blog", Addr: c.addr, Proto: protoTCP, Port: c.port})
		if err != nil {
			t.Fatal(err)
		}
		var why string
		for _, s := range e.Steps {
			if s.Name == "isolate" {
				why = s.Why
			}
		}
		if e.Verdict != c.verdict || !strings.Contains(why, c.why) || c.line != "" && !strings.Contains(told(e.Changes), c.line) {
			t.Errorf("%s:%d: %s, %q, %s", c.addr, c.port, e.Verdict, why, told(e.Changes))
		}
	}
}

// TestManyPublishedPortsCostNoAllocation: a decision allocates nothing, however
// much is published.
func TestManyPublishedPortsCostNoAllocation(t *testing.T) {
	w := newWorld(t, manyPorts())
	w.vassal("blog", blog)
	p := w.holder(blog)
	for name, sent := range map[string][]byte{
		"published": tcp(blog, hostAddr, 8080, tuntest.SYN),
		"closed":    tcp(blog, hostAddr, 22, tuntest.SYN),
		"loopback":  tcp(blog, netip.MustParseAddr("127.0.0.1"), 8080, tuntest.SYN),
		"internet":  tcp(blog, internet, 443, tuntest.SYN),
	} {
		w.on(p.shard, func() {
			n, now, pk := p.net, p.shard.now, &p.shard.pk
			if got := testing.AllocsPerRun(100, func() {
				if pk.decode(sent) == pass {
					n.outward(p, pk, n.policy.Load(), now)
				}
			}); got != 0 {
				t.Errorf("%s: %v allocations", name, got)
			}
		})
	}
}

// manyPorts is a network of a host that publishes 1,000 ports.
func manyPorts() NetworkConfig {
	cfg := publishing()
	for port := range uint16(1000) {
		cfg.Published = append(cfg.Published, Port{Proto: protoTCP, First: 10000 + 2*port, Last: 10000 + 2*port})
	}
	return cfg
}

// BenchmarkDecidePublished is the router's share of a packet as BenchmarkDecide
// has it, with 1,000 published ports and a strange network, and without.
func BenchmarkDecidePublished(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  NetworkConfig
		sent []byte
	}{
		{"none", isolated(), tcp(blog, internet, 443, tuntest.SYN)},
		{"1000", manyPorts(), tcp(blog, internet, 443, tuntest.SYN)},
		{"1000, to one", manyPorts(), tcp(blog, hostAddr, 11000, tuntest.SYN)},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, c.cfg)
			w.vassal("blog", blog)
			p := w.holder(blog)
			w.on(p.shard, func() {
				n, now, pk := p.net, p.shard.now, &p.shard.pk
				for b.Loop() {
					if pk.decode(c.sent) != pass {
						b.Fatal("malformed")
					}
					if v, _ := n.outward(p, pk, n.policy.Load(), now); v.why != pass {
						b.Fatal(v.why)
					}
				}
			})
		})
	}
}
