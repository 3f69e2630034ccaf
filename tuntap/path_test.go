package tuntap

import (
	"net/netip"
	"testing"
	"time"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// families runs a test for IPv4 and for IPv6: the same rules, the same verdicts.
func families(t *testing.T, fn func(t *testing.T, blog, shop, gateway, internet netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { fn(t, blog, shop, gateway, internet) })
	t.Run("IPv6", func(t *testing.T) { fn(t, blog6, shop6, gateway6, netip.MustParseAddr("2001:db8::7")) })
}

func TestToTheHostAndBack(t *testing.T) {
	families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
		w := newWorld(t, native())
		end := w.vassal("blog", blog)
		out, back := udp(blog, internet, 53), udp(internet, blog, 40000)
		end.Send(t, out)
		if got := w.host.Receive(t); string(got) != string(out) {
			t.Errorf("the host got % x", got)
		}
		w.host.Send(t, back)
		if got := end.Receive(t); string(got) != string(back) {
			t.Errorf("the vassal got % x", got)
		}
		nettest.Eventually(t, 5*time.Second, "packets to be counted", func() bool {
			s := w.stats("blog")
			return s.TxPackets == 2 && s.RxPackets == 1 && s.RxBytes == uint64(len(back)) && s.TxBytes > uint64(len(out))
		})
	})
}

func TestVassalToVassal(t *testing.T) {
	for name, direct := range map[string]bool{"direct": true, "through the kernel": false} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
				cfg := native()
				cfg.Direct = direct
				w := newWorld(t, cfg)
				a, b := w.vassal("blog", blog), w.vassal("shop", shop)
				p := udp(blog, shop, 80)
				a.Send(t, p)
				if !direct {
					got := w.host.Receive(t)
					w.host.Send(t, got) // as ip_forward does
				}
				if got := b.Receive(t); string(got) != string(p) {
					t.Errorf("the neighbour got % x", got)
				}
				if !w.host.Empty() {
					t.Error("the host got a copy")
				}
			})
		})
	}
}

func TestPoolAddressWithoutPeerHasNoRoute(t *testing.T) {
	families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
		w := newWorld(t, native())
		end := w.vassal("blog", blog)
		end.Send(t, udp(blog, shop, 80))
		w.dropped("blog", DropNoRoute, 1)
		checkUnreachable(t, end.Receive(t), 1, 3, gateway, blog, udp(blog, shop, 80))
		w.host.Send(t, udp(internet, shop, 80))
		checkUnreachable(t, w.host.Receive(t), 1, 3, gateway, internet, udp(internet, shop, 80))
		w.host.Send(t, tcp(internet, shop, 80, tuntest.SYN)) // no reset: somebody may have the address later
		checkUnreachable(t, w.host.Receive(t), 1, 3, gateway, internet, tcp(internet, shop, 80, tuntest.SYN))
		if got := w.r.Snapshot()[0].Drops[DropNoRoute]; got != 2 {
			t.Errorf("%d drops at the host's side; want 2", got)
		}
		if !w.host.Empty() {
			t.Error("it was sent back to the host")
		}
	})
}

func TestChainsAndOwnRules(t *testing.T) {
	families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
		deny := func(dst netip.Addr, port uint16) firewall.Rule {
			return firewall.Rule{Action: firewall.Deny, Dst: single(dst), Proto: 17, Ports: []firewall.PortRange{{First: port, Last: port}}}
		}
		cfg := native()
		cfg.Out = []firewall.Rule{deny(internet, 1)}
		cfg.In = []firewall.Rule{deny(blog, 2)}
		w := newWorld(t, cfg)
		end, _ := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Rules: []DeviceRule{
			{Direction: firewall.Out, Rule: deny(internet, 3)}, {Direction: firewall.In, Rule: deny(blog, 4)},
		}})
		w.register(end, blog)
		for _, port := range []uint16{1, 3} {
			end.Send(t, udp(blog, internet, port))
		}
		end.Send(t, udp(blog, internet, 4))
		w.host.Receive(t)
		for _, port := range []uint16{2, 4} {
			w.host.Send(t, udp(internet, blog, port))
		}
		w.host.Send(t, udp(internet, blog, 3))
		end.Receive(t)
		w.dropped("blog", DropRule, 4)
		if !w.host.Empty() || !end.Empty() {
			t.Error("a denied packet passed")
		}
		s := w.r.Snapshot()[0]
		if s.Out[0].Hits != 1 || s.In[0].Hits != 1 || s.Peers[0].Out[0].Hits != 1 || s.Peers[0].In[0].Hits != 1 {
			t.Errorf("hits: %+v", s)
		}
	})
}

func TestDirectPacketsPassTheInChain(t *testing.T) {
	cfg := native()
	cfg.In = []firewall.Rule{{Action: firewall.Deny, Src: single(blog)}}
	w := newWorld(t, cfg)
	a, b := w.vassal("blog", blog), w.vassal("shop", shop)
	a.Send(t, udp(blog, shop, 80))
	w.dropped("shop", DropRule, 1)
	if !b.Empty() {
		t.Error("a packet passed chain in")
	}
}

func TestIPv6IsOffWithoutAnAddress(t *testing.T) { // T06
	cfg := native()
	cfg.Own = cfg.Own[:1]
	cfg.Out = []firewall.Rule{{Action: firewall.Allow}}
	w := newWorld(t, cfg)
	end, _ := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog), single(blog6)}})
	end.Send(t, udp(blog6, netip.MustParseAddr("2001:db8::1"), 53))
	w.dropped("blog", DropForbidden, 1)
	w.register(end, blog)
	if got := w.stats("blog").Addresses; len(got) != 1 || got[0] != blog {
		t.Errorf("registered %v", got)
	}
	if !w.host.Empty() {
		t.Error("IPv6 passed")
	}
}

func TestChatterIsDroppedAndDoesNotHurt(t *testing.T) { // T06
	w := newWorld(t, native(), foreignOnly)
	f := w.connect()
	local, all := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")
	packets := [][]byte{
		tuntest.ICMP(local, netip.MustParseAddr("ff02::2"), 133, 0, nil),              // router solicitation
		tuntest.ICMP(netip.IPv6Unspecified(), all, 135, 0, make([]byte, 20)),          // duplicate address detection
		tuntest.ICMP(local, netip.MustParseAddr("ff02::16"), 143, 0, make([]byte, 8)), // multicast listener
		tuntest.ICMP(local, all, 134, 0, make([]byte, 12)),                            // router advertisement
		tuntest.ICMP(blog6, shop6, 134, 0, make([]byte, 12)),
		tuntest.ICMP(blog6, shop6, 135, 0, make([]byte, 20)),
		tuntest.ICMP(blog6, shop6, 136, 0, make([]byte, 20)),
		tuntest.ICMP(blog6, gateway6, 137, 0, make([]byte, 36)),
		tuntest.ICMP(blog, gateway, 5, 0, make([]byte, 32)),
		udp(blog6, all, 5353),
		udp(blog6, local, 53),
	}
	for _, p := range packets {
		f.send(p)
	}
	w.dropped("", DropForbidden, uint64(len(packets)))
	f.send(tuntest.Echo(blog, gateway, 1, 1))
	if h := w.await("registered"); h.addr != blog {
		t.Errorf("registered %v", h.addr)
	}
	if !w.hostGotOnly(blog) {
		t.Error("chatter reached the host")
	}
}

func TestVerdictPathAllocatesNothing(t *testing.T) {
	cfg := native()
	cfg.Isolate = true
	cfg.Out = []firewall.Rule{{Action: firewall.Deny, Dst: prefixes("203.0.113.0/24")[0]}}
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	w.vassal("shop", shop)
	var allocs float64
	p := w.holder(blog)
	w.on(p.shard, func() {
		n, now := p.net, p.shard.now
		packets := [][]byte{
			udp(blog, internet, 53), tcp(blog, internet, 80, tuntest.SYN), udp(blog, shop, 53), udp(shop, internet, 53),
			tuntest.Fragment(udp(blog, internet, 53), 9, 0, 8), tuntest.Fragment(udp(blog, internet, 53), 9, 8, 13),
			udp(gateway, blog, 53), []byte("nonsense"), udp(blog, netip.MustParseAddr("203.0.113.1"), 1),
		}
		pk := new(packet)
		once := func() {
			for _, b := range packets {
				if pk.decode(b) == pass {
					n.fromPeer(p, pk, n.policy.Load(), now)
					n.towards(p, pk, n.policy.Load(), &p.sent[firewall.In], now)
					n.table.Load().owner(pk.flow.Dst)
				}
			}
		}
		once() // tables of fragments and flows are made when first needed
		allocs = testing.AllocsPerRun(100, once)
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestWholeWayAllocatesNothing(t *testing.T) {
	w := newWorld(t, native())
	end := w.vassal("blog", blog)
	b := append(make([]byte, room), udp(blog, internet, 53)...)
	stolen := append(make([]byte, room), udp(shop, internet, 53)...)
	var allocs float64
	p := w.holder(blog)
	w.on(p.shard, func() {
		p.shard.fromPeer(p, stolen) // one log line is due
		allocs = testing.AllocsPerRun(50, func() {
			p.shard.fromPeer(p, b)
			p.shard.fromPeer(p, stolen)
		})
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	end.Close()
}
