package tuntap

import (
	"net/netip"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

func isolated() NetworkConfig {
	cfg := native()
	cfg.Isolate = true
	cfg.Host = []netip.Addr{gateway, gateway6, netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	cfg.Resolvers = []netip.Addr{netip.MustParseAddr("192.168.1.53"), netip.MustParseAddr("198.51.100.1")}
	return cfg
}

func TestIsolate(t *testing.T) {
	judgeAll(t, isolated(), []judged{
		{"internet", tcp(blog, internet, 443, tuntest.SYN), false},
		{"internet, IPv6", tcp(blog6, netip.MustParseAddr("2001:db8::7"), 443, tuntest.SYN), false},
		{"ping the gateway", tuntest.Echo(blog, gateway, 1, 1), false},
		{"ping the gateway, IPv6", tuntest.Echo(blog6, gateway6, 1, 1), false},
		{"DNS at the gateway", udp(blog, gateway, 53), false},
		{"DNS over TCP", tcp(blog, gateway, 53, tuntest.SYN), false},
		{"ssh at the gateway", tcp(blog, gateway, 22, tuntest.SYN), true},
		{"resolver", udp(blog, netip.MustParseAddr("192.168.1.53"), 53), false},
		{"resolver that is the host", udp(blog, netip.MustParseAddr("198.51.100.1"), 53), false},
		{"resolver, other port", udp(blog, netip.MustParseAddr("192.168.1.53"), 80), true},
		{"another server's DNS", udp(blog, netip.MustParseAddr("192.168.1.54"), 53), true},
		{"the host", tcp(blog, netip.MustParseAddr("198.51.100.1"), 22, tuntest.SYN), true},
		{"the host, IPv6", tcp(blog6, netip.MustParseAddr("2001:db8::1"), 22, tuntest.SYN), true},
		{"10/8", udp(blog, netip.MustParseAddr("10.1.1.1"), 9), true},
		{"172.16/12", udp(blog, netip.MustParseAddr("172.31.0.1"), 9), true},
		{"192.168/16", udp(blog, netip.MustParseAddr("192.168.7.7"), 9), true},
		{"RFC 6598", udp(blog, netip.MustParseAddr("100.64.0.1"), 9), true},
		{"metadata", tcp(blog, netip.MustParseAddr("169.254.169.254"), 80, tuntest.SYN), true},
		{"loopback", udp(blog, netip.MustParseAddr("127.0.0.1"), 9), true},
		{"multicast", udp(blog, netip.MustParseAddr("239.1.1.1"), 9), true},
		{"broadcast", udp(blog, netip.MustParseAddr("255.255.255.255"), 9), true},
		{"ULA", udp(blog6, netip.MustParseAddr("fd77::1"), 9), true},
		{"NAT64 of a private", udp(blog6, netip.MustParseAddr("64:ff9b::10.1.1.1"), 9), true},
		{"NAT64 of a public", udp(blog6, netip.MustParseAddr("64:ff9b::198.51.100.7"), 9), false},
		{"NAT64 of the host", udp(blog6, netip.MustParseAddr("64:ff9b::198.51.100.1"), 9), true},
		{"local NAT64", udp(blog6, netip.MustParseAddr("64:ff9b:1::1"), 9), true},
		{"mapped private", udp(blog6, netip.MustParseAddr("::ffff:10.1.1.1"), 9), true},
		{"6to4 of a private", udp(blog6, netip.MustParseAddr("2002:c0a8:101::1"), 9), true},
		{"6to4 of a public", udp(blog6, netip.MustParseAddr("2002:c633:6407::1"), 9), false},
		{"answer to TCP", tcp(blog, netip.MustParseAddr("10.1.1.1"), 9, tuntest.SYN|tuntest.ACK), false},
		{"TCP without any flag", tcp(blog, netip.MustParseAddr("10.1.1.1"), 9, 0), true},
		{"echo reply", tuntest.ICMP(blog, netip.MustParseAddr("10.1.1.1"), 0, 0, nil), false},
		{"echo", tuntest.Echo(blog, netip.MustParseAddr("10.1.1.1"), 1, 1), true},
		{"port unreachable", tuntest.ICMP(blog, netip.MustParseAddr("10.1.1.1"), 3, 3, make([]byte, 32)), false},
		{"echo reply, IPv6", tuntest.ICMP(blog6, netip.MustParseAddr("fd77::1"), 129, 0, nil), false},
		{"other protocol", tuntest.IP(blog, netip.MustParseAddr("10.1.1.1"), 47, []byte{1, 2, 3}), true},
	})
}

// judged is a packet of blog's, and whether isolate denies it.
type judged struct {
	name   string
	packet []byte
	denied bool
}

func judgeAll(t *testing.T, cfg NetworkConfig, packets []judged) {
	t.Helper()
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	w.register6(end)
	for _, p := range packets {
		t.Run(p.name, func(t *testing.T) { w.judge(t, end, p.packet, p.denied, DropIsolate) })
	}
}

// judge sends a packet as blog, which the host gets, or which is dropped.
func (w *world) judge(t *testing.T, end *tuntest.End, sent []byte, denied bool, why Reason) {
	t.Helper()
	before := w.stats("blog").Drops[why]
	end.Send(t, sent)
	if !denied {
		if got := w.host.Receive(t); string(got) != string(sent) {
			t.Errorf("the host got % x", got)
		}
		return
	}
	w.settle(end, blog)
	if got := w.stats("blog").Drops[why] - before; got != 1 {
		t.Errorf("%d drops; want 1", got)
	}
}

// register6 registers blog6 for a vassal that may have it: the harness's
// vassals may one address only.
func (w *world) register6(end *tuntest.End) {
	w.t.Helper()
	p := w.holder(blog)
	p.net.allow(p, []netip.Prefix{single(blog), single(blog6)})
	w.register(end, blog6)
}

func TestIsolateLetsUDPAnswersPass(t *testing.T) {
	w := newWorld(t, isolated())
	end := w.vassal("blog", blog)
	monitor := netip.MustParseAddr("10.1.1.1")
	answer := tuntest.UDP(netip.AddrPortFrom(blog, 53), netip.AddrPortFrom(monitor, 40000), []byte("answer"))
	end.Send(t, answer)
	w.dropped("blog", DropIsolate, 1)
	w.host.Send(t, udp(monitor, blog, 53))
	end.Receive(t)
	end.Send(t, answer)
	w.host.Receive(t)
	end.Send(t, udp(blog, monitor, 40000)) // from another port
	w.dropped("blog", DropIsolate, 2)

	// The flow's time is over.
	w.later(flowLifetime)
	end.Send(t, answer)
	w.dropped("blog", DropIsolate, 3)
}

func TestIsolatedNeighbours(t *testing.T) {
	w := newWorld(t, isolated())
	a, b := w.vassal("blog", blog), w.vassal("shop", shop)
	a.Send(t, tcp(blog, shop, 80, tuntest.SYN))
	a.Send(t, udp(blog, shop, 53))
	a.Send(t, tuntest.Echo(blog, shop, 1, 1))
	w.dropped("blog", DropIsolate, 3)
	if !b.Empty() {
		t.Error("a neighbour was reached")
	}
}

func TestExplicitAllowEndsTheOutChainBeforeIsolate(t *testing.T) {
	cfg := isolated()
	cfg.Out = []firewall.Rule{{Action: firewall.Allow, Src: single(blog), Dst: single(shop)}}
	w := newWorld(t, cfg)
	a, b := w.vassal("blog", blog), w.vassal("shop", shop)
	a.Send(t, tcp(blog, shop, 80, tuntest.SYN))
	b.Receive(t)
	b.Send(t, tcp(shop, blog, 80, tuntest.SYN))
	w.dropped("shop", DropIsolate, 1)
}

func TestFlowsAreBounded(t *testing.T) {
	f := new(flows)
	flow := firewall.Flow{Src: internet, Dst: blog, HasPorts: true, Proto: 17}
	for port := range uint16(10000) {
		flow.SrcPort = port
		f.came(&flow, int64(port)+1)
	}
	answer := firewall.Flow{Src: blog, Dst: internet, HasPorts: true, Proto: 17, DstPort: 9999}
	if !f.answers(&answer, 10000) {
		t.Error("the newest flow was pushed out")
	}
	if f.answers(&answer, 10000+2*int64(flowLifetime)) {
		t.Error("a flow lives for ever")
	}
}
