package tuntap

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

func TestParseDeviceRule(t *testing.T) {
	for _, c := range []struct {
		name, text string
		target     string // empty: the packet goes by the table
		err        string
	}{
		{"a firewall's", "in any any deny", "", ""},
		{"route", "out 10.9.0.7 10.10.0.0/16 route 198.51.100.2:4040", "198.51.100.2:4040", ""},
		{"gateway", "out\tany  10.10.0.0/16 gateway 198.51.100.2:4040", "198.51.100.2:4040", ""},
		{"a foreign router's loopback", "out any any route 127.0.0.1:4040", "127.0.0.1:4040", ""},
		{"route in", "in any any route 198.51.100.2:4040", "", "only packets on their way out"},
		{"nowhere", "out any any route", "", "out SRC DST route IP:PORT"},
		{"two places", "out any any gateway 198.51.100.2:4040 198.51.100.3:4040", "", "out SRC DST gateway IP:PORT"},
		{"no port", "out any any route 198.51.100.2", "", "an IPv4 address and a port"},
		{"port zero", "out any any route 198.51.100.2:0", "", "an IPv4 address and a port"},
		{"IPv6", "out any any route [fd00::1]:4040", "", "an IPv4 address and a port"},
		{"a bad source", "out 10.9.0.300 any route 198.51.100.2:4040", "", "source"},
		{"a typing error", "out any any rout 198.51.100.2:4040", "", `unknown action "rout"`},
		{"a target of deny", "out any any deny 198.51.100.2:4040", "", "has no target"},
		{"too short", "out any", "", "is not a device rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseDeviceRule(c.text)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v; want %q", err, c.err)
				}
				return
			}
			if err != nil || r.Routes() != (c.target != "") || r.Routes() && r.Target != netip.MustParseAddrPort(c.target) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	both := DeviceRule{Rule: firewall.Rule{Action: firewall.Deny}, Target: far}
	if err := both.Check(); err == nil {
		t.Error("a rule denies and routes")
	}
}

// A foreign router gets uWSGI's action 2, with the target in the network's order.
func TestRouteInARuleBlock(t *testing.T) {
	b, err := encodeRuleBlock(deviceRules(t, "out any 10.10.0.0/16 route 198.51.100.2:4040"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []byte{blockRoute, 198, 51, 100, 2, 4040 >> 8, 4040 & 0xff}; !bytes.Equal(b[17:], want) {
		t.Errorf("the block ends in % x; want % x", b[17:], want)
	}
	block := parseRuleBlock(b)
	if u := block.match(firewall.Out, &firewall.Flow{Src: blog, Dst: blue}); u == nil || u.target != far {
		t.Errorf("a router reads %+v", block)
	}
	in := DeviceRule{Direction: firewall.In, Target: far}
	if _, err := encodeRuleBlock([]DeviceRule{in}); err == nil {
		t.Error("a rule in routes")
	}
}

// What an ini's rules route leaves by the gateway, to far ends that the config
// names only; isolation holds for it, and the first rule decides.
func TestDevicesRouteByTheirInis(t *testing.T) {
	cfg := federated()
	cfg.Isolate = true
	other := netip.MustParseAddr("203.0.113.5")
	f := newFederation(t, cfg)
	end, _ := f.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Rules: deviceRules(t,
		"out any 203.0.113.5 allow", "out any 203.0.113.6 deny", "in any any allow", "out any 203.0.113.0/24 route 198.51.100.2:4040",
		"out any 192.168.0.0/16 gateway 198.51.100.2:4040", "out any 198.18.0.0/15 route 198.51.100.2:4041")})
	f.register(end, blog)
	routed := udp(blog, netip.MustParseAddr("203.0.113.7"), 53)
	end.Send(t, routed)
	if got := f.receive(); !bytes.Equal(got, routed) {
		t.Errorf("the far end got % x", got)
	}
	long := tuntest.UDP(netip.AddrPortFrom(blog, 40000), netip.MustParseAddrPort("203.0.113.7:53"), make([]byte, 56))
	for _, part := range [][]byte{tuntest.Fragment(long, 1, 0, 32), tuntest.Fragment(long, 1, 32, 64)} {
		end.Send(t, part)
		if got := f.receive(); !bytes.Equal(got, part) {
			t.Errorf("the far end got % x; want % x", got, part)
		}
	}
	allowed := udp(blog, other, 53)
	end.Send(t, allowed)
	if got := f.host.Receive(t); !bytes.Equal(got, allowed) {
		t.Errorf("the host got % x", got)
	}
	for _, c := range []struct {
		dst string
		why Reason
	}{{"203.0.113.6", DropRule}, {"192.168.7.7", DropIsolate}, {"198.18.0.1", DropForbidden}} {
		end.Send(t, udp(blog, netip.MustParseAddr(c.dst), 53))
		f.dropped("blog", c.why, 1)
	}
	byRoute := udp(blog, blue, 53) // the operator's, which none of its rules speaks of
	end.Send(t, byRoute)
	if got := f.receive(); !bytes.Equal(got, byRoute) {
		t.Errorf("the far end got % x", got)
	}
	// A packet is counted when it has left.
	nettest.Eventually(t, 5*time.Second, "four packets that left are counted", func() bool { return f.r.Snapshot()[0].Gateway.TxPackets == 4 })
	if !f.host.Empty() {
		t.Error("the host got one more")
	}
}

func TestRoutingByInisAllocatesNothing(t *testing.T) {
	cfg := native()
	cfg.Host, cfg.FarEnds = []netip.Addr{near}, []netip.AddrPort{far}
	f := newFederation(t, cfg)
	end, _ := f.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Rules: deviceRules(t, "out any 10.10.0.0/16 route 198.51.100.2:4040")})
	f.register(end, blog)
	p := f.holder(blog)
	out := append(make([]byte, room), udp(blog, blue, 53)...)
	var n float64
	f.on(p.shard, func() { n = testing.AllocsPerRun(20, func() { p.shard.fromPeer(p, out) }) })
	if sent := f.r.Snapshot()[0].Gateway.TxPackets; n != 0 || sent != 21 {
		t.Errorf("%v allocations, %d packets; want 0 and 21", n, sent)
	}
}
