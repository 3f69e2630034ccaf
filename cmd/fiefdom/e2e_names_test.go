package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	vnetns "github.com/vishvananda/netns"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// digs asks a server for a name from a network namespace.
func digs(t testing.TB, ns vnetns.NsHandle, network, server string, q *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	var c net.Conn
	err := netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout(network, net.JoinHostPort(server, "53"), 5*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c, UDPSize: dns.MaxMsgSize}
	if err := c.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
		return nil, err
	}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	return conn.ReadMsg()
}

// query is a question as a C library asks it.
func query(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	return q
}

// said is an answer in few words: what went wrong, or the records' data.
func said(m *dns.Msg, err error) string {
	if err != nil {
		return err.Error()
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// jailOf is a vassal's network namespace.
func (r *realm) jailOf(s emperor.Status) vnetns.NsHandle {
	r.t.Helper()
	ns, err := vnetns.GetFromPath(r.Path(fmt.Sprintf("/proc/%d/ns/net", s.PID)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ns.Close() })
	return ns
}

// asks asks the router of a vassal's network, from its jail.
func (r *realm) asks(s emperor.Status, name string, qtype uint16) string {
	r.t.Helper()
	return said(digs(r.t, r.jailOf(s), "udp", "10.9.0.1", query(name, qtype)))
}

// resolver answers DNS in a namespace until the test's end.
func resolver(t testing.TB, ns *nettest.NS, addr netip.Addr, handler dns.HandlerFunc) {
	t.Helper()
	at := netip.AddrPortFrom(addr, 53).String()
	for _, kind := range []string{"udp", "tcp"} {
		server := &dns.Server{Handler: handler}
		ns.Do(t, func() {
			var err error
			if kind == "udp" {
				server.PacketConn, err = net.ListenPacket(kind, at)
			} else {
				server.Listener, err = net.Listen(kind, at)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-done })
	}
}

// world is the internet's resolver: it knows one address of every name, and keeps
// what was asked.
type world struct{ asked atomic.Pointer[[]string] }

func (w *world) ServeDNS(c dns.ResponseWriter, q *dns.Msg) {
	for {
		before := w.asked.Load()
		all := []string{}
		if before != nil {
			all = slices.Clone(*before)
		}
		all = append(all, strings.ToLower(q.Question[0].Name))
		if w.asked.CompareAndSwap(before, &all) {
			break
		}
	}
	m := new(dns.Msg)
	m.SetReply(q)
	if strings.HasPrefix(strings.ToLower(q.Question[0].Name), "nowhere.") {
		m.Rcode = dns.RcodeNameError
	} else if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(203, 0, 113, 9)}}
	}
	_ = c.WriteMsg(m)
}

func (w *world) was(name string) bool {
	all := w.asked.Load()
	return all != nil && slices.ContainsFunc(*all, func(n string) bool { return strings.Contains(n+"\n", name) })
}

// One vassal finds another by its name, as any program does, and everything else by
// the host's resolvers, which never hear of vassals.
func TestNamesInOneNetwork(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	var inet world
	resolver(t, w.Inet, nettest.InetAddr4, inet.ServeDNS)
	r := layRealm(t, w, "emperor", nativeNetwork+"tuntap-router-address = fd00:9::1/64\n")
	r.write("/etc/resolv.conf", "nameserver 198.51.100.2\nsearch example.org\n")
	r.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 machine\n192.0.2.7 printer\n")
	r.drop("blog", agentIni)
	r.drop("shop", "[uwsgi]\ncommand = AGENT\ntuntap-device = eth0\ntuntap-device-address = 10.9.7.7\n")
	r.drop("example.com", agentIni)
	r.start()
	r.reach("shop")
	blog, site := r.reach("blog"), r.reach("example.com")
	ip4 := func(s emperor.Status) string {
		return s.Addresses[slices.IndexFunc(s.Addresses, netip.Addr.Is4)].String()
	}
	ip6 := func(s emperor.Status) string {
		return s.Addresses[slices.IndexFunc(s.Addresses, netip.Addr.Is6)].String()
	}
	if got := r.mustSh(blog, "cat /etc/resolv.conf"); got != "nameserver 10.9.0.1\nnameserver fd00:9::1\nsearch fiefdom.internal example.org\n" {
		t.Errorf("resolv.conf:\n%s", got)
	}
	for _, name := range []string{"shop", "shop.fief0", "shop.fiefdom.internal", "SHOP.Fiefdom.Internal.", "shop.fief0.fiefdom.internal"} {
		if got := r.mustSh(blog, "getent hosts "+name); !strings.HasPrefix(got, "10.9.7.7 ") {
			t.Errorf("getent hosts %s: %q", name, got)
		}
	}
	if got := r.mustSh(blog, "getent hosts 10.9.7.7"); !strings.Contains(got, "shop.fiefdom.internal") {
		t.Errorf("getent hosts 10.9.7.7: %q", got)
	}
	if got := r.mustSh(blog, "getent ahostsv4 www.example.net; getent hosts printer; getent hosts blog"); !strings.Contains(got, "203.0.113.9") ||
		!strings.Contains(got, "192.0.2.7") || !strings.Contains(got, ip6(blog)+" ") {
		t.Errorf("others: %s", got)
	}
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"shop", dns.TypeA, "10.9.7.7"},
		{"shop", dns.TypeAAAA, ""}, // it has no IPv6: a name without such records, not no name
		{"shop.fiefdom.internal", dns.TypeMX, ""},
		{"blog", dns.TypeAAAA, ip6(blog)},
		{"example.com.fiefdom.internal", dns.TypeA, ip4(site)},
		{"com.fiefdom.internal", dns.TypeA, ""},
		{"example.com", dns.TypeA, "203.0.113.9"}, // the world's
		{"nobody.fiefdom.internal", dns.TypeA, "NXDOMAIN"},
		{"nobody.fief0", dns.TypeA, "NXDOMAIN"},
		{"7.7.9.10.in-addr.arpa", dns.TypePTR, "shop.fiefdom.internal."},
		{"9.9.9.10.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{"nowhere.example", dns.TypeA, "NXDOMAIN"},
		{"shop", dns.TypeANY, "REFUSED"},
		{"fiefdom.internal", dns.TypeAXFR, "REFUSED"},
		{"localhost", dns.TypeA, "127.0.0.1"},
	} {
		if got := r.asks(blog, c.name, c.qtype); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
	for _, at := range []string{"10.9.0.1", "fd00:9::1"} {
		for _, network := range []string{"udp", "tcp"} {
			if got := said(digs(t, r.jailOf(blog), network, at, query("shop", dns.TypeA))); got != "10.9.7.7" {
				t.Errorf("by %s at %s: %q", network, at, got)
			}
			if got := said(digs(t, r.Host.Handle, network, at, query("shop", dns.TypeA))); got != "10.9.7.7" {
				t.Errorf("the host by %s at %s: %q", network, at, got)
			}
		}
	}
	if inet.was("shop.\n") || inet.was("fiefdom") || inet.was("fief0.\n") || inet.was("9.10.in-addr") {
		t.Errorf("the host's resolver was asked for %q", *inet.asked.Load())
	}
	r.stop(syscall.SIGTERM)
}

// A program of the host that has asked before there was a network goes on with the
// socket that it has, which is bound to the address that it would have left the host by.
func TestNamesForAnOlderSocket(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", agentIni)
	r.before = r.Snapshot(t)
	var older net.Conn
	r.Host.Do(t, func() {
		var err error
		if older, err = net.Dial("udp", "10.9.0.1:53"); err != nil {
			t.Fatal(err)
		}
	})
	defer older.Close()
	if host, _, _ := net.SplitHostPort(older.LocalAddr().String()); host != nettest.HostAddr4.String() {
		t.Fatalf("the socket is bound to %s", host)
	}
	r.start()
	blog := r.reach("blog")
	nettest.Eventually(t, patience, "the older socket is answered", func() bool {
		_ = older.SetDeadline(time.Now().Add(time.Second))
		conn := &dns.Conn{Conn: older}
		if err := conn.WriteMsg(query("blog.fiefdom.internal", dns.TypeA)); err != nil {
			return false
		}
		return said(conn.ReadMsg()) == blog.Addresses[0].String()
	})
	r.stop(syscall.SIGTERM)
}

// Another program of the host has port 53 of all addresses, as a dnsmasq does that was
// set up by somebody: names work, it goes on, and the log says who it is.
func TestNamesWherePort53IsTaken(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	var inet world
	resolver(t, w.Inet, nettest.InetAddr4, inet.ServeDNS)
	const taker = `import socket, time
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET6, kind)
    s.bind(("::", 53))
    if kind == socket.SOCK_STREAM: s.listen()
    globals()["s%d" % kind] = s
print("taken", flush=True)
time.sleep(1000)`
	other := exec.Command("python3", "-c", taker)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Start(t, other)
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r := layRealm(t, w, "emperor", nativeNetwork+"tuntap-router-address = fd00:9::1/64\n")
	r.drop("blog", agentIni)
	r.start()
	blog := r.reach("blog")
	asks := func() {
		t.Helper()
		for _, at := range []string{"10.9.0.1", "fd00:9::1"} {
			for _, network := range []string{"udp", "tcp"} {
				if got := said(digs(t, r.jailOf(blog), network, at, query("blog.fief0", dns.TypeA))); got != blog.Addresses[0].String() {
					t.Errorf("by %s at %s: %q", network, at, got)
				}
			}
		}
	}
	asks()
	// The host's own questions stay that program's, but at the other port.
	r.Host.Do(t, func() {
		m, _, err := new(dns.Client).Exchange(query("blog.fiefdom.internal", dns.TypeA), "10.9.0.1:10053")
		if got := said(m, err); got != blog.Addresses[0].String() {
			t.Errorf("the host at port 10053: %q", got)
		}
	})
	if got := r.mustSh(blog, "getent hosts www.example.net"); !strings.HasPrefix(got, "203.0.113.9 ") {
		t.Errorf("others: %q", got)
	}
	if log, err := os.ReadFile(r.log); err != nil || !strings.Contains(string(log), "names are answered at another port") || !strings.Contains(string(log), "has53=\"python3 (pid ") {
		t.Errorf("the log does not say who has it:\n%s", log)
	}
	r.die()
	r.start()
	asks()
	r.stop(syscall.SIGTERM)
}

// A vassal that is a name server for the world publishes port 53, and the others'
// names are answered as before.
func TestNamesBesideAPublishedNameServer(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	const server = `import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 53))
while True: s.sendto(b"named", s.recvfrom(1000)[1])`
	r := layRealm(t, w, "emperor", nativeNetwork)
	r.write("/run/named.py", server)
	r.drop("named", "[uwsgi]\ncommand = python3 /run/named.py\npublish = 53:53/udp\npublish = 53:53/tcp\n")
	r.drop("blog", agentIni)
	r.start()
	blog, named := r.reach("blog"), r.awaitState("named", emperor.Running)
	for range 2 {
		if got := r.asks(blog, "named.fief0", dns.TypeA); got != named.Addresses[0].String() {
			t.Errorf("the vassals' names: %q", got)
		}
		var c net.Conn
		r.Inet.Do(t, func() {
			var err error
			if c, err = net.Dial("udp", "198.51.100.1:53"); err != nil {
				t.Fatal(err)
			}
		})
		nettest.Eventually(t, patience, "the world is answered by the vassal", func() bool {
			b := make([]byte, 100)
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Write([]byte("?"))
			n, _ := c.Read(b)
			return string(b[:n]) == "named"
		})
		c.Close()
		r.die()
		r.start()
		r.quiet()
	}
	r.stop(syscall.SIGTERM)
}
