package nat

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// bridged is a host with a bridge, two vassals' namespaces with a port each, and
// a machine of somebody else's on the same bridge, private and not.
type bridged struct {
	host, a, b, lan *nettest.NS
	rules           *Bridges
}

var (
	bridgeOf = Bridge{
		Name: "br0", Isolate: true, Pool: prefixes("10.100.0.0/24", "fd10::/64"),
		Own: addrs("10.100.0.1", "fd10::1"), Resolvers: addrs("10.100.0.53"),
	}
	portA = Port{Device: "pa", Bridge: "br0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xa}, Addrs: addrs("10.100.0.2", "fd10::2")}
	portB = Port{Device: "pb", Bridge: "br0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xb}, Addrs: addrs("10.100.0.3", "fd10::3")}
)

// newBridged makes it, with the rules of br.
func newBridged(t *testing.T, br Bridge) *bridged {
	t.Helper()
	nettest.Root(t)
	nettest.Program(t, "nft")
	w := &bridged{host: nettest.NewNS(t), a: nettest.NewNS(t), b: nettest.NewNS(t), lan: nettest.NewNS(t)}
	w.host.Run(t, "sh", "-ec", `ip link add br0 type bridge
		ip link set br0 up
		ip addr add 10.100.0.1/24 dev br0
		ip addr add fd10::1/64 dev br0 nodad
		ip addr add 203.0.113.1/24 dev lo`)
	w.rules = NewBridges("test", slog.New(slog.DiscardHandler))
	w.do(t, func() error { return w.rules.Set([]Bridge{br}, nil) })
	w.join(t, w.a, &portA, br.Isolate)
	w.join(t, w.b, &portB, br.Isolate)
	w.join(t, w.lan, &Port{Device: "pl", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xc}, Addrs: addrs("10.100.0.9", "203.0.113.9", "fd10::9")}, false)
	return w
}

func (w *bridged) do(t *testing.T, f func() error) {
	t.Helper()
	w.host.Do(t, func() {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	})
}

// join gives a namespace its device, and the host its end of it.
func (w *bridged) join(t *testing.T, ns *nettest.NS, p *Port, isolated bool) {
	t.Helper()
	nettest.Veth(t, nettest.End{NS: w.host, Name: p.Device}, nettest.End{NS: ns, Name: "eth0"})
	ns.Run(t, "ip", "link", "set", "eth0", "down")
	ns.Run(t, "ip", "link", "set", "eth0", "address", p.MAC.String(), "addrgenmode", "none", "up")
	for _, a := range p.Addrs {
		bits := "/24"
		if a.Is6() {
			bits = "/64"
		}
		args := []string{"addr", "add", a.String() + bits, "dev", "eth0"}
		if a.Is6() {
			args = append(args, "nodad")
		}
		ns.Run(t, "ip", args...)
	}
	if p.Bridge != "" {
		w.do(t, func() error { return w.rules.Admit(*p) })
		ns.Run(t, "ip", "route", "add", "default", "via", "10.100.0.1")
	}
	w.host.Run(t, "ip", "link", "set", p.Device, "master", "br0")
	if isolated {
		w.host.Run(t, "bridge", "link", "set", "dev", p.Device, "isolated", "on")
	}
}

// ping says whether an address answers a namespace.
func ping(t *testing.T, ns *nettest.NS, args ...string) bool {
	t.Helper()
	words := strings.Join(args, " ")
	return strings.TrimSpace(ns.Run(t, "sh", "-c", "ping -c 2 -i 0.2 -W 0.5 "+words+" >/dev/null 2>&1 && echo yes || echo no")) == "yes"
}

// An isolated vassal reaches the host by ping and what is not private; no
// neighbour, no private address and no other port of the host. Who comes to it
// is answered.
func TestBridgeIsolates(t *testing.T) {
	t.Parallel()
	w := newBridged(t, bridgeOf)
	tests := []struct {
		from *nettest.NS
		to   string
		want bool
	}{
		{w.a, "10.100.0.1", true},
		{w.a, "fd10::1", true},
		{w.host, "10.100.0.2", true},
		{w.host, "fd10::2", true},
		{w.a, "10.100.0.3", false},
		{w.a, "fd10::3", false},
		{w.a, "10.100.0.9", false},
		{w.a, "fd10::9", false},
		{w.lan, "10.100.0.2", true},
		{w.lan, "fd10::2", true},
		{w.a, "203.0.113.1", false}, // the host, by another of its addresses
	}
	for _, tt := range tests {
		if got := ping(t, tt.from, tt.to); got != tt.want {
			t.Errorf("a ping of %s: %v, want %v", tt.to, got, tt.want)
		}
	}
	for _, tt := range []struct {
		server, client *nettest.NS
		proto, at      string
		want           bool
	}{
		{w.host, w.a, "tcp", "10.100.0.1:8000", false},
		{w.host, w.a, "tcp", "203.0.113.1:8000", false}, // as a router's, in another network
		{w.host, w.a, "udp", "203.0.113.1:8000", false},
		{w.host, w.a, "tcp", "203.0.113.1:53", false},
		{w.host, w.a, "tcp", "10.100.0.1:53", true},
		{w.host, w.a, "udp", "10.100.0.1:53", true},
		{w.host, w.a, "udp", "[fd10::1]:53", true},
		{w.lan, w.a, "tcp", "10.100.0.9:80", false},
		{w.lan, w.a, "udp", "10.100.0.9:80", false},
		{w.lan, w.a, "udp", "[fd10::9]:80", false},
		{w.lan, w.a, "tcp", "10.100.0.9:53", false},
		{w.a, w.lan, "tcp", "10.100.0.2:80", true},
		{w.a, w.lan, "udp", "10.100.0.2:80", true},
		{w.a, w.host, "udp", "[fd10::2]:80", true},
		{w.a, w.b, "tcp", "10.100.0.2:80", false},
	} {
		if got := talk(t, tt.server, tt.client, tt.proto, tt.at); got != tt.want {
			t.Errorf("%s to %s: %v, want %v", tt.proto, tt.at, got, tt.want)
		}
	}
}

// Other networks are strangers whose addresses are not private, too.
func TestBridgeIsolatesFromOtherNetworks(t *testing.T) {
	t.Parallel()
	w := newBridged(t, bridgeOf)
	far := nettest.NewNS(t)
	nettest.Veth(t, nettest.End{NS: w.host, Name: "eth1"}, nettest.End{NS: far, Name: "eth0"})
	w.host.Run(t, "sh", "-ec", "ip addr add 198.51.100.1/24 dev eth1; ip -6 addr add 2001:db8::1/64 dev eth1 nodad; echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	far.Run(t, "sh", "-ec", "ip addr add 198.51.100.9/24 dev eth0; ip -6 addr add 2001:db8::9/64 dev eth0 nodad; ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8::1")
	w.a.Run(t, "ip", "-6", "route", "add", "default", "via", "fd10::1")
	for _, c := range []struct {
		name    string
		routers []netip.Prefix
		bridges []Bridge
		want    bool
	}{
		{"machines of the world's", nil, nil, true},
		{"a router's network", prefixes("198.51.100.0/24", "2001:db8::/64"), nil, false},
		{"a bridge of others", nil, []Bridge{{Name: "eth1", Pool: prefixes("198.51.100.0/24", "2001:db8::/64")}}, true},
		{"a bridge of vassals", nil, []Bridge{{Name: "eth1", Ours: true, Pool: prefixes("198.51.100.0/24", "2001:db8::/64")}}, false},
	} {
		w.rules.Strangers = c.routers
		w.do(t, func() error { return w.rules.Set(append(c.bridges, bridgeOf), []Port{portA}) })
		for _, at := range []string{"198.51.100.9:80", "[2001:db8::9]:80"} {
			if got := talk(t, far, w.a, "tcp", at); got != c.want {
				t.Errorf("%s: %s answers: %v, want %v", c.name, at, got, c.want)
			}
		}
		if !talk(t, w.a, far, "udp", "10.100.0.2:80") {
			t.Errorf("%s: who comes in is not answered", c.name)
		}
	}
}

// talk says whether a client gets an answer from a server.
func talk(t *testing.T, server, client *nettest.NS, proto, at string) bool {
	t.Helper()
	return talkVia(t, server, client, proto, at, at)
}

// talkVia is talk with a server that is asked for at another address.
func talkVia(t *testing.T, server, client *nettest.NS, proto, at, by string) (answered bool) {
	t.Helper()
	var stop func() error
	server.Do(t, func() {
		if proto == "tcp" {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			stop = l.Close
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					fmt.Fprint(c, "x")
					c.Close()
				}
			}()
			return
		}
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		stop = c.Close
		go func() {
			buf := make([]byte, 10)
			for _, from, err := c.ReadFrom(buf); err == nil; _, from, err = c.ReadFrom(buf) {
				_, _ = c.WriteTo([]byte("x"), from)
			}
		}()
	})
	defer stop()
	client.Do(t, func() {
		c, err := net.DialTimeout(proto, by, time.Second)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprint(c, "?")
		n, _ := c.Read(make([]byte, 1))
		answered = n == 1
	})
	return answered
}

// Whoever is root in a namespace behind a port has no more addresses than the
// port, by IPv4, ARP, IPv6, neighbour discovery, or another MAC, isolated or not.
func TestBridgeTakesNobodyElsesSource(t *testing.T) {
	t.Parallel()
	for _, isolate := range []bool{true, false} {
		t.Run(fmt.Sprint("isolate ", isolate), func(t *testing.T) {
			t.Parallel()
			br := bridgeOf
			br.Isolate = isolate
			w := newBridged(t, br)
			if got := ping(t, w.a, "10.100.0.3"); got == isolate {
				t.Errorf("a ping of the neighbour with isolate %v: %v", isolate, got)
			}
			if !ping(t, w.a, "10.100.0.1") || !ping(t, w.host, "fd10::3") {
				t.Fatal("nobody reaches anybody")
			}
			// a takes b's addresses, and a new one.
			w.a.Run(t, "sh", "-c", "ip addr add 10.100.0.3/24 dev eth0; ip addr add 10.100.0.77/24 dev eth0; ip -6 addr add fd10::3/64 dev eth0 nodad; ip -6 addr add fd10::77/64 dev eth0 nodad")
			for _, from := range []string{"10.100.0.3", "10.100.0.77", "fd10::3", "fd10::77"} {
				to := "10.100.0.1"
				if strings.Contains(from, ":") {
					to = "fd10::1"
				}
				if ping(t, w.a, "-I", from, to) {
					t.Errorf("a packet from %s was taken", from)
				}
			}
			w.host.Run(t, "ip", "neigh", "flush", "all")
			for _, a := range []string{"10.100.0.3", "fd10::3"} {
				ping(t, w.host, a)
				if out := w.host.Run(t, "ip", "neigh", "show", a); !strings.Contains(out, portB.MAC.String()) {
					t.Errorf("the host looks for %s at %q", a, out)
				}
			}
			for _, a := range []string{"10.100.0.77", "fd10::77"} {
				ping(t, w.host, a)
				if out := w.host.Run(t, "ip", "neigh", "show", a); strings.Contains(out, portA.MAC.String()) {
					t.Errorf("the host heard who has %s: %q", a, out)
				}
			}
			if !ping(t, w.a, "-I", "10.100.0.2", "10.100.0.1") {
				t.Error("its own address is not taken any more")
			}
			w.a.Run(t, "sh", "-c", "ip link set eth0 address 02:00:00:00:00:0b; ip route replace default via 10.100.0.1")
			if ping(t, w.a, "-I", "10.100.0.2", "10.100.0.1") {
				t.Error("a frame with another's MAC was taken")
			}
		})
	}
}

// What is published at all of the host's addresses may be asked for at the bridge's
// own, and goes no further than to who publishes it: the host itself stays closed.
func TestBridgeLetsWhatIsPublishedPass(t *testing.T) {
	t.Parallel()
	w := newBridged(t, bridgeOf)
	all := func(host string, first, last uint16) Published {
		return Published{Host: netip.MustParseAddr(host), First: first, Last: last, Proto: 6}
	}
	passed := func() string {
		out := w.host.Run(t, "nft", "list", "set", "bridge", "fiefdom-test", "published")
		_, elements, _ := strings.Cut(out, "elements = ")
		return strings.Join(strings.Fields(strings.TrimRight(elements, "}\n\t ")), " ")
	}
	w.do(t, func() error {
		return w.rules.Publish([]Published{all("0.0.0.0", 8000, 8010), all("::", 8005, 8020), all("0.0.0.0", 80, 80), all("127.0.0.1", 90, 90)})
	})
	if got, want := passed(), "{ tcp . 80, tcp . 8000-8020"; got != want {
		t.Errorf("%q may pass, want %q", got, want)
	}
	if talk(t, w.host, w.a, "tcp", "10.100.0.1:8000") {
		t.Error("a port of the host itself is open for a vassal")
	}
	// Who publishes is not isolated by the kernel itself.
	w.host.Run(t, "sh", "-c", "bridge link set dev pb isolated off; echo 1 >/proc/sys/net/ipv4/ip_forward; iptables -t nat -A PREROUTING -d 10.100.0.1 -p tcp --dport 8000 -j DNAT --to-destination 10.100.0.3:8000; iptables -t nat -A POSTROUTING -o br0 -m conntrack --ctstate DNAT -j MASQUERADE")
	via := func() (answered bool) {
		return talkVia(t, w.b, w.a, "tcp", "10.100.0.3:8000", "10.100.0.1:8000")
	}
	if !via() {
		t.Error("what is published cannot be reached by a vassal")
	}
	if ping(t, w.a, "10.100.0.3") || ping(t, w.b, "10.100.0.2") || talk(t, w.b, w.a, "tcp", "10.100.0.3:8001") {
		t.Error("a vassal reaches more of its neighbour than what that one publishes")
	}
	w.do(t, func() error { return w.rules.Publish(nil) })
	if via() {
		t.Error("what is published no more can be reached")
	}
}
