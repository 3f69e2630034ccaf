package tuntap

import (
	"net/netip"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

func TestForbiddenAddresses(t *testing.T) { // T05
	reserved := netip.MustParseAddr("10.9.0.50")
	cfg := native()
	cfg.Reserved = map[netip.Addr]string{reserved: "other", netip.MustParseAddr("fd09::50"): "other"}
	cfg.Host = []netip.Addr{netip.MustParseAddr("10.9.3.3")}
	for name, src := range map[string]string{
		"gateway":           "10.9.0.1",
		"gateway, IPv6":     "fd09::1",
		"network":           "10.9.0.0",
		"broadcast":         "10.9.255.255",
		"limited broadcast": "255.255.255.255",
		"multicast":         "224.0.0.5",
		"unspecified":       "0.0.0.0",
		"loopback":          "127.0.0.1",
		"loopback, IPv6":    "::1",
		"link-local":        "169.254.1.1",
		"outside the pool":  "10.8.0.7",
		"ULA of others":     "fd0a::7",
		"subnet router":     "fd09::",
		"reserved":          "10.9.0.50",
		"reserved, IPv6":    "fd09::50",
		"mapped":            "::ffff:10.9.0.9",
		"the host's":        "10.9.3.3",
		"class E":           "240.0.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, cfg, foreignOnly)
			addr := netip.MustParseAddr(src)
			to := internet
			if addr.Is6() {
				to = netip.MustParseAddr("2001:db8::1")
			}
			f := w.connect()
			f.send(tuntest.IP(addr, to, 17, udp(blog, shop, 9)[20:]))
			h := w.await("refused")
			if h.addr != addr || h.why != DropForbidden {
				t.Errorf("refused %v: %v; want %v: forbidden", h.addr, h.why, addr)
			}
			if want := cfg.Reserved[addr]; h.holder != want {
				t.Errorf("holder is %q; want %q", h.holder, want)
			}
			// The peer is alive and may have a proper address.
			f.send(tuntest.Echo(blog, gateway, 1, 1))
			if h := w.await("registered"); h.addr != blog {
				t.Errorf("registered %v", h.addr)
			}
			if !w.hostGotOnly(blog) {
				t.Error("the host was sent a packet with a forbidden source")
			}
		})
	}
}

// hostGotOnly reads one packet at the host and reports whether it is src's and the only one.
func (w *world) hostGotOnly(src netip.Addr) bool {
	var pk packet
	return pk.decode(w.host.Receive(w.t)) == pass && pk.flow.Src == src && w.host.Empty()
}

func TestFirstPacketRegistersAndOnlyThatPairIsValid(t *testing.T) {
	w := newWorld(t, native(), foreignOnly)
	a, b := w.connect(), w.connect()
	a.send(tuntest.Echo(blog, gateway, 1, 1))
	w.await("registered")
	w.host.Receive(t)
	a.send(tuntest.Echo(blog6, gateway6, 1, 1)) // each family on its own
	if h := w.await("registered"); h.addr != blog6 {
		t.Fatalf("registered %v", h.addr)
	}
	w.host.Receive(t)

	a.send(udp(shop, internet, 9)) // spoofed
	b.send(udp(blog, internet, 9)) // taken
	if h := w.await("refused"); h.addr != blog || h.why != DropTaken {
		t.Fatalf("refused %+v; want %v taken", h, blog)
	}
	b.send(udp(shop, internet, 9)) // still free
	if h := w.await("registered"); h.addr != shop {
		t.Fatalf("registered %v", h.addr)
	}
	if !w.hostGotOnly(shop) {
		t.Error("a spoofed or stolen source reached the host")
	}

	// The holder is gone: its addresses are free.
	a.conn.Close()
	w.await("closed")
	c := w.connect()
	c.send(udp(blog, internet, 9))
	if h := w.await("registered"); h.addr != blog {
		t.Fatalf("registered %v", h.addr)
	}
}

func TestDeclaredVassalRegistersOnlyItsOwn(t *testing.T) {
	w := newWorld(t, native())
	end, _ := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	end.Send(t, udp(shop, internet, 9))
	if h := w.await("refused"); h.addr != shop || h.why != DropForbidden || h.vassal != "blog" {
		t.Fatalf("refused %+v", h)
	}
	end.Send(t, udp(blog6, netip.MustParseAddr("2001:db8::1"), 9)) // not declared
	w.dropped("blog", DropForbidden, 2)
	w.register(end, blog)
	end.Send(t, udp(shop, internet, 9))
	w.dropped("blog", DropSpoofed, 1)
}

func TestReservedAddressRegistersWhateverTheChainsSay(t *testing.T) {
	cfg := native()
	cfg.Out = []firewall.Rule{{Action: firewall.Deny, File: "emperor.ini", Line: 6}}
	w := newWorld(t, cfg)
	declared, _ := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	declared.Send(t, tuntest.Echo(blog, gateway, 1, 1))
	if h := w.await("registered"); h.addr != blog {
		t.Fatalf("registered %v", h.addr)
	}
	w.dropped("blog", DropRule, 1)

	free, _ := w.handOver(Handover{Vassal: "shop"})
	free.Send(t, tuntest.Echo(shop, gateway, 1, 1))
	w.dropped("shop", DropRule, 1)
	if got := w.stats("shop").Addresses; len(got) != 0 {
		t.Errorf("a packet that chain out denies registered %v", got)
	}
	if !w.host.Empty() {
		t.Error("a denied packet reached the host")
	}
}

func TestReservationInTheConfigCountsForItsVassal(t *testing.T) {
	cfg := native()
	cfg.Reserved = map[netip.Addr]string{blog: "blog"}
	w := newWorld(t, cfg)
	thief, _ := w.handOver(Handover{Vassal: "shop"})
	thief.Send(t, udp(blog, internet, 9))
	if h := w.await("refused"); h.holder != "blog" || h.why != DropForbidden {
		t.Fatalf("refused %+v", h)
	}
	end, _ := w.handOver(Handover{Vassal: "blog"})
	w.register(end, blog)
}

func TestGrantedPrefix(t *testing.T) {
	w := newWorld(t, native())
	end, _ := w.handOver(Handover{Vassal: "gw", May: prefixes("10.9.4.0/24")})
	end.Send(t, udp(netip.MustParseAddr("10.9.4.9"), internet, 9))
	w.await("registered")
	w.host.Receive(t)
	end.Send(t, udp(netip.MustParseAddr("10.9.4.77"), internet, 9))
	w.host.Receive(t)
	w.host.Send(t, udp(internet, netip.MustParseAddr("10.9.4.200"), 9))
	end.Receive(t)
	if got := w.stats("gw").Addresses; len(got) != 1 || got[0] != netip.MustParseAddr("10.9.4.9") {
		t.Errorf("addresses %v", got)
	}
	if _, _, err := w.tryHandOver(Handover{Vassal: "x", May: prefixes("10.9.4.5/32"), Registered: []netip.Addr{netip.MustParseAddr("10.9.4.5")}}); err == nil {
		t.Error("an address of a granted prefix was given to another vassal")
	}
}

func TestNetworkWithoutPool(t *testing.T) {
	cfg := NetworkConfig{Name: "uwsgi0", Own: []netip.Addr{netip.MustParseAddr("192.168.0.1")}}
	w := newWorld(t, cfg, foreignOnly)
	f := w.connect()
	f.send(udp(netip.MustParseAddr("192.168.0.1"), internet, 9))
	if h := w.await("refused"); h.why != DropForbidden {
		t.Fatalf("refused %+v", h)
	}
	f.send(udp(netip.MustParseAddr("192.168.0.7"), internet, 9))
	w.await("registered")
}

func TestThousandRacesHaveOneOwner(t *testing.T) { // T04
	rounds := scaled(100, 1000)
	w := newWorld(t, native(), foreignOnly)
	for range rounds {
		a, b := w.connect(), w.connect()
		done := make(chan struct{})
		go func() { defer close(done); a.conn.Write(framed(kindData, udp(blog, internet, 9))) }()
		b.conn.Write(framed(kindData, udp(blog, internet, 9)))
		<-done
		w.await("registered")
		w.await("refused")
		if !w.hostGotOnly(blog) {
			t.Fatal("two peers spoke for one address")
		}
		a.conn.Close()
		b.conn.Close()
		w.await("closed")
		w.await("closed")
	}
}
