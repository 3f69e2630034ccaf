package tuntap

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

var (
	near = netip.MustParseAddr("198.51.100.1")
	far  = netip.MustParseAddrPort("198.51.100.2:4040")
	blue = netip.MustParseAddr("10.10.0.20") // behind the far end
)

// federation is a world whose gateway is on a wire to two other machines' sockets.
type federation struct {
	*world
	here     netip.AddrPort // the gateway
	far      *net.UDPConn   // named by a route
	stranger *net.UDPConn   // on the same machine, and not named
}

// federated is a network with a route to what is behind the far end.
func federated() NetworkConfig {
	cfg := native()
	cfg.Host = []netip.Addr{near}
	cfg.Routes = []Route{{Rule: firewall.Rule{Dst: prefixes("10.10.0.0/16")[0], File: "emperor.ini", Line: 9}, Target: far}}
	return cfg
}

func newFederation(t *testing.T, cfg NetworkConfig, tune ...func(*Router)) *federation {
	t.Helper()
	nettest.Root(t)
	hostNS, inetNS := nettest.NewNS(t), nettest.NewNS(t)
	nettest.Veth(t,
		nettest.End{NS: hostNS, Name: "up0", Addrs: []netip.Prefix{netip.PrefixFrom(near, 24)}},
		nettest.End{NS: inetNS, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(far.Addr(), 24)}})
	socket := func(ns *nettest.NS, a netip.AddrPort) (c *net.UDPConn) {
		ns.Do(t, func() {
			var err error
			if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a)); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { c.Close() })
		return c
	}
	gw := socket(hostNS, netip.AddrPortFrom(near, 0))
	f := &federation{
		here: gw.LocalAddr().(*net.UDPAddr).AddrPort(), far: socket(inetNS, far), stranger: socket(inetNS, netip.AddrPortFrom(far.Addr(), 4041)),
	}
	file, err := gw.File()
	if err != nil {
		t.Fatal(err)
	}
	gw.Close()
	f.world = newWorldWith(t, cfg, file, tune...)
	return f
}

func (f *federation) receive() []byte {
	f.t.Helper()
	_ = f.far.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 1<<16)
	n, from, err := f.far.ReadFromUDPAddrPort(b)
	if err != nil {
		f.t.Fatal(err)
	}
	if from != f.here {
		f.t.Errorf("it came from %v; want the gateway, %v", from, f.here)
	}
	return b[:n]
}

func (f *federation) send(from *net.UDPConn, packet []byte) {
	f.t.Helper()
	if _, err := from.WriteToUDPAddrPort(packet, f.here); err != nil {
		f.t.Fatal(err)
	}
}

// lost waits until the gateway has dropped so many packets for a reason.
func (f *federation) lost(why Reason, want uint64) {
	f.t.Helper()
	nettest.Eventually(f.t, 5*time.Second, "packets of the gateway dropped as "+why.String(), func() bool {
		return f.r.Snapshot()[0].Drops[why] >= want
	})
	if got := f.r.Snapshot()[0].Drops[why]; got != want {
		f.t.Fatalf("%d dropped as %s; want %d", got, why, want)
	}
}

func TestRoutedPacketsLeaveByTheGateway(t *testing.T) {
	cfg := federated()
	cfg.Isolate = true // the operator's route is a rule before it
	f := newFederation(t, cfg)
	end := f.vassal("blog", blog)
	out, back := udp(blog, blue, 53), udp(blue, blog, 40000)
	end.Send(t, out)
	if got := f.receive(); !bytes.Equal(got, out) {
		t.Errorf("the far end got % x", got)
	}
	f.send(f.far, back)
	if got := end.Receive(t); !bytes.Equal(got, back) {
		t.Errorf("the vassal got % x", got)
	}
	end.Send(t, udp(blog, netip.MustParseAddr("192.168.7.7"), 53)) // no route: isolation
	f.dropped("blog", DropIsolate, 1)
	s := f.r.Snapshot()[0]
	want := GatewayStats{RxPackets: 1, RxBytes: uint64(len(back)), TxPackets: 1, TxBytes: uint64(len(out))}
	if s.Gateway == nil || *s.Gateway != want || len(s.Routes) != 1 || s.Routes[0].Hits != 1 {
		t.Errorf("counted %+v, %+v; want %+v and one hit", s.Gateway, s.Routes, want)
	}
	if !f.host.Empty() {
		t.Error("the host got a packet")
	}
}

// Both parts of a datagram go the same way, whoever says so.
func TestFragmentsLeaveByTheGateway(t *testing.T) {
	f := newFederation(t, federated())
	end := f.vassal("blog", blog)
	long := tuntest.UDP(netip.AddrPortFrom(blog, 40000), netip.AddrPortFrom(blue, 53), make([]byte, 56))
	for _, part := range [][]byte{tuntest.Fragment(long, 1, 0, 32), tuntest.Fragment(long, 1, 32, 64)} {
		end.Send(t, part)
		if got := f.receive(); !bytes.Equal(got, part) {
			t.Errorf("the far end got % x; want % x", got, part)
		}
	}
}

// A far end's packets go the way of the host's, and are never answered.
func TestGatewayTakesWhatMayComeIn(t *testing.T) {
	cfg := federated()
	cfg.In = []firewall.Rule{{Action: firewall.Reject, Src: single(blue), Proto: protoTCP}}
	f := newFederation(t, cfg)
	a, b := f.vassal("blog", blog), f.vassal("shop", shop)
	good := udp(blue, blog, 53)
	for _, c := range []struct {
		name   string
		from   *net.UDPConn
		packet []byte
		why    Reason
	}{
		{"of a stranger", f.stranger, good, DropForbidden},
		{"no packet", f.far, []byte("hello"), DropMalformed},
		{"an empty one", f.far, nil, DropMalformed},
		{"for nobody", f.far, udp(blue, netip.MustParseAddr("10.9.0.99"), 53), DropNoRoute},
		{"for the host", f.far, udp(blue, near, 53), DropNoRoute},
		{"for the internet", f.far, udp(blue, internet, 53), DropNoRoute},
		{"for another far end", f.far, udp(blue, blue, 53), DropNoRoute},
		{"as a neighbour", f.far, udp(shop, blog, 53), DropSpoofed},
		{"as the router", f.far, udp(gateway, blog, 53), DropSpoofed},
		{"as the host", f.far, udp(near, blog, 53), DropSpoofed},
		{"as the loopback", f.far, udp(netip.MustParseAddr("127.0.0.1"), blog, 53), DropSpoofed},
	} {
		before := f.r.Snapshot()[0].Drops[c.why]
		f.send(c.from, c.packet)
		t.Log(c.name)
		f.lost(c.why, before+1)
	}
	f.send(f.far, tcp(blue, blog, 80, tuntest.SYN))
	f.dropped("blog", DropRule, 1)
	f.send(f.far, good)
	if got := a.Receive(t); !bytes.Equal(got, good) {
		t.Errorf("the vassal got % x", got)
	}
	if !f.host.Empty() || !a.Empty() || !b.Empty() {
		t.Error("something was answered or passed")
	}
	if n := f.r.Snapshot()[0].Gateway.TxPackets; n != 0 {
		t.Errorf("%d packets were sent", n)
	}
}

// A device may route to the far ends that the config names, by uWSGI's block;
// isolation holds for it.
func TestDevicesRouteByTheirBlock(t *testing.T) {
	cfg := native()
	cfg.Host, cfg.FarEnds, cfg.Isolate = []netip.Addr{near}, []netip.AddrPort{far}, true
	f := newFederation(t, cfg, foreignOnly)
	c := f.connect()
	route := func(dst uint32, to netip.AddrPort) []byte {
		b := blockOf([6]uint32{1, 0, 0, dst, 0xffffffff, 2})
		ip := to.Addr().As4()
		copy(b[18:], ip[:])
		binary.BigEndian.PutUint16(b[22:], to.Port())
		return b
	}
	const public, private = 0xc6336407, 0x0a0a0014 // internet, blue
	c.write(framed(kindRules, slices.Concat(
		route(public, far), route(private, far), route(0x08080808, netip.MustParseAddrPort("198.51.100.2:4041")), route(0x08080809, netip.AddrPortFrom(near, 22)))))
	p := udp(blog, internet, 53)
	c.send(p)
	if got := f.receive(); !bytes.Equal(got, p) {
		t.Errorf("the far end got % x", got)
	}
	c.send(udp(blog, blue, 53))
	f.dropped("", DropIsolate, 1)
	c.send(udp(blog, netip.MustParseAddr("8.8.8.8"), 53))
	c.send(udp(blog, netip.MustParseAddr("8.8.8.9"), 53))
	f.dropped("", DropForbidden, 2)
	if !f.host.Empty() {
		t.Error("the host got a packet")
	}
}

// A far end's address is nobody's in the network: a vassal that had it could
// speak as the far end.
func TestFarEndsAddressIsNotGiven(t *testing.T) {
	cfg := federated()
	cfg.Pool = nil
	f := newFederation(t, cfg, foreignOnly)
	f.connect().send(udp(far.Addr(), near, 53))
	f.dropped("", DropForbidden, 1)
}

// What the host has become is never sent to, even if a route says so.
func TestRouteToTheHostItselfSendsNothing(t *testing.T) {
	cfg := federated()
	f := newFederation(t, cfg)
	end := f.vassal("blog", blog)
	cfg.Host = append(slices.Clone(cfg.Host), far.Addr())
	if err := f.r.Update(cfg); err != nil {
		t.Fatal(err)
	}
	end.Send(t, udp(blog, blue, 53))
	f.dropped("blog", DropForbidden, 1)
	f.send(f.far, udp(blue, blog, 53))
	f.lost(DropForbidden, 1)
}

func TestGatewayAllocatesNothing(t *testing.T) {
	f := newFederation(t, federated())
	f.vassal("blog", blog)
	p, n := f.holder(blog), f.r.networks[0]
	out := append(make([]byte, room), udp(blog, blue, 53)...)
	in := append(make([]byte, room), udp(blue, blog, 53)...)
	var sent, came float64
	f.on(p.shard, func() {
		sent = testing.AllocsPerRun(20, func() { p.shard.fromPeer(p, out) })
	})
	f.on(n.shard, func() {
		came = testing.AllocsPerRun(20, func() {
			_, _ = n.shard.receiveFar(n.gateway.conn.fd) // nothing is there
			n.shard.fromGateway(n, far, in)
			n.shard.endDrain()
		})
	})
	if sent+came != 0 {
		t.Errorf("%v and %v allocations", sent, came)
	}
	if s := *f.r.Snapshot()[0].Gateway; s.TxPackets != 21 || s.RxPackets != 21 {
		t.Errorf("counted %+v", s)
	}
}

func TestGatewayOptions(t *testing.T) {
	const network = "tuntap-router = fief0 /run/fief0.sock"
	for _, c := range []struct {
		name, text string
		want       string // of the error; empty: none
	}{
		{"a gateway", network + " /run/stats 198.51.100.1:4040\ntuntap-router-route = 10.9.0.0/16 10.10.0.0/16 198.51.100.2:4040\ntuntap-router-gateway-peer = 198.51.100.3:4040", ""},
		{"on every address, without stats", network + ` "" :4040`, ""},
		{"five words", network + " a b c", "want DEVICE SOCKET"},
		{"on the loopback", network + " a 127.0.0.1:4040", "on the loopback"},
		{"no address", network + " a gateway", "want an IPv4 address of this host"},
		{"IPv6", network + " a [fd00::1]:4040", "want an IPv4 address of this host"},
		{"a route without a gateway", network + "\ntuntap-router-route = any any 198.51.100.2:4040", "need a gateway"},
		{"a far end without a gateway", network + "\ntuntap-router-gateway-peer = 198.51.100.2:4040", "need a gateway"},
		{"a route to the loopback", network + " a :4040\ntuntap-router-route = any any 127.0.0.1:53", "is this host itself"},
		{"a route to any", network + " a :4040\ntuntap-router-route = any any 0.0.0.0:53", "is this host itself"},
		{"a route to many", network + " a :4040\ntuntap-router-route = any any 224.0.0.1:53", "no machine's address"},
		{"a broadcast", network + " a :4040\ntuntap-router-gateway-peer = 255.255.255.255:53", "no machine's address"},
		{"no port", network + " a :4040\ntuntap-router-route = any any 198.51.100.2", "an IPv4 address and a port"},
		{"two words", network + " a :4040\ntuntap-router-route = any 198.51.100.2:53", "want SRC DST IP:PORT"},
		{"bad addresses", network + " a :4040\ntuntap-router-route = 10.9.0.300 any 198.51.100.2:53", "source"},
		{"credentials", network + "\ntuntap-use-credentials = true", ""},
		{"a function for credentials", network + "\ntuntap-use-credentials = my_ids", "no code is loaded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pairs []ini.Pair
			for line := range strings.Lines(c.text) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
				pairs = append(pairs, ini.Pair{Key: key, Value: value})
			}
			networks, errs := ParseNetworks(pairs)
			if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
				t.Fatalf("errors %v; want %q", errs, c.want)
			}
			if c.name != "a gateway" {
				return
			}
			n := networks[0]
			if n.Gateway != netip.AddrPortFrom(near, 4040) || len(n.Routes) != 1 || n.Routes[0].Target != far || len(n.FarEnds) != 1 || n.Stats != "/run/stats" {
				t.Errorf("got %+v", n)
			}
		})
	}
}

// What the kernel left undone is done: a datagram has no header to say it in.
func TestLargePacketsAreCutForTheGateway(t *testing.T) {
	f := newFederation(t, federated())
	f.vassal("blog", blog)
	p := f.holder(blog)
	large := func(size, segment int) []byte {
		packet := tuntest.TCP(netip.AddrPortFrom(blog, 40000), netip.AddrPortFrom(blue, 80), 16, 1000, 2000, make([]byte, size))
		b := append(make([]byte, room), packet...)
		h := b[room-vnetLen:]
		h[0], h[1] = vnetNeedsChecksum, vnetTCP4
		binary.NativeEndian.PutUint16(h[4:], uint16(segment))
		binary.NativeEndian.PutUint16(h[6:], 20)
		binary.NativeEndian.PutUint16(h[8:], 16)
		return b
	}
	f.on(p.shard, func() { p.shard.fromPeer(p, large(3000, 1400)) })
	for i, want := range []int{1400, 1400, 200} {
		got := f.receive()
		if len(got) != 40+want {
			t.Fatalf("segment %d has %d bytes; want %d", i, len(got)-40, want)
		}
		if tuntest.TransportChecksum(got) != 0 || tuntest.Checksum(got[:20]) != 0 {
			t.Errorf("segment %d has wrong checksums", i)
		}
	}
	f.on(p.shard, func() { p.shard.fromPeer(p, large(3000, 1)) })
	f.dropped("blog", DropFull, 1)
	if n := f.r.Snapshot()[0].Gateway.TxPackets; n != 3 {
		t.Errorf("%d packets were sent; want 3", n)
	}
}
