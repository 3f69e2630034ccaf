package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// answersNames asks at addresses of a network by UDP and TCP, until all say the same.
func (r *realm) answersNames(from emperor.Status, servers []string, name string, qtype uint16, want string) {
	r.t.Helper()
	ns := r.jailOf(from)
	for _, server := range servers {
		for _, proto := range []string{"udp", "tcp"} {
			got := ""
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				_ = netns.Do(ns, func() error {
					c := dns.Client{Net: proto, Timeout: silence}
					m, _, err := c.Exchange(query(name, qtype), net.JoinHostPort(server, "53"))
					got = said(m, err)
					return nil
				})
				if got == want {
					break
				}
			}
			if got != want {
				r.t.Fatalf("%s asks %s by %s for %s: %q, want %q", from.Name, server, proto, name, got, want)
			}
		}
	}
}

// Vassals of two bridges and of a router's network find each other where they are on
// the same one, whoever dies, and everything else by the host's resolvers.
func TestNamesInKernelBridges(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	var inet world
	resolver(t, w.Inet, nettest.InetAddr4, inet.ServeDNS)
	r := layRealm(t, w, "emperor", nativeNetwork+"bridge = br1 10.101.0.1/24\n")
	r.drop("blog", bridgedVassal)
	r.drop("shop", "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n")
	r.drop("wiki", "[uwsgi]\nnetwork = bridge:br1\ncommand = AGENT\n")
	r.drop("both", "[uwsgi]\nnetwork = bridge:br0\nnetwork = fief0\ncommand = AGENT\n")
	r.drop("plain", "[uwsgi]\nnetwork = fief0\ncommand = AGENT\n")
	r.start()
	blog, shop, wiki, both, plain := r.reach("blog"), r.reach("shop"), r.reach("wiki"), r.reach("both"), r.reach("plain")
	br0, br1, fief0 := []string{"10.100.0.1", "fd10::1"}, []string{"10.101.0.1"}, []string{"10.9.0.1"}
	all := func() {
		t.Helper()
		for _, name := range []string{"shop", "shop.br0", "shop.fiefdom.internal", "shop.br0.fiefdom.internal"} {
			r.answersNames(blog, br0, name, dns.TypeA, addressOf(t, shop, 32).String())
			r.answersNames(blog, br0, name, dns.TypeAAAA, addressOf(t, shop, 128).String())
		}
		for _, a := range shop.Addresses {
			ptr, _ := dns.ReverseAddr(a.String())
			r.answersNames(blog, br0, ptr, dns.TypePTR, "shop.fiefdom.internal.")
			r.answersNames(wiki, br1, ptr, dns.TypePTR, "NXDOMAIN")
		}
		r.answersNames(wiki, br1, "wiki", dns.TypeA, addressOf(t, wiki, 32).String())
		r.answersNames(wiki, br1, "shop.br0", dns.TypeA, "NXDOMAIN")
		r.answersNames(blog, br0, "wiki.fiefdom.internal", dns.TypeA, "NXDOMAIN")
		r.answersNames(blog, br0, "plain.fiefdom.internal", dns.TypeA, "NXDOMAIN")
		r.answersNames(plain, fief0, "shop.fiefdom.internal", dns.TypeA, "NXDOMAIN")
		r.answersNames(plain, fief0, "both", dns.TypeA, both.Addresses[1].String())
		r.answersNames(both, br0, "plain", dns.TypeA, addressOf(t, plain, 32).String())
		r.answersNames(blog, br0, "www.example.net", dns.TypeA, "203.0.113.9")
	}
	if len(both.Addresses) != 3 {
		t.Fatalf("both has %v", both.Addresses)
	}
	slices.SortFunc(both.Addresses, func(a, b netip.Addr) int { return -a.Compare(b) }) // fd10:…, 10.100.…, 10.9.…
	both.Addresses[1] = both.Addresses[2]
	all()
	if got := r.mustSh(shop, "cat /etc/resolv.conf; getent hosts blog"); !strings.HasPrefix(got, "nameserver 10.100.0.1\nnameserver fd10::1\nsearch fiefdom.internal") || !strings.Contains(got, "  blog.fiefdom.internal\n") {
		t.Errorf("shop has %s", got)
	}
	if got := r.mustSh(shop, "getent hosts shop"); !strings.Contains(got, addressOf(t, shop, 128).String()) {
		t.Errorf("shop does not know itself: %s", got)
	}
	was := r.responderPID()
	r.die()
	r.start()
	nettest.Eventually(t, patience, "another responder", func() bool { pid := r.responderPID(); return pid != 0 && pid != was })
	all()
	if now := r.reach("shop"); now.PID != shop.PID {
		t.Errorf("shop: %s", unlike(shop, now))
	}
	r.stop(syscall.SIGTERM)
	for _, name := range []string{"shop", "wiki", "plain"} {
		if inet.was(name + ".") {
			t.Errorf("the world was asked for %s", name)
		}
	}
}

// A bridge that somebody makes, removes and makes again, and that gets another address,
// has its names as soon as vassals are in it; those of others go on.
func TestNamesFollowABridge(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", noNetwork)
	lay := func() {
		t.Helper()
		r.Run(t, "sh", "-ec", "ip link add lan0 address 02:11:22:33:44:55 type bridge; ip link set lan0 addrgenmode none; ip link set lan0 up; ip addr add 203.0.113.10/24 dev lan0; ip addr add fd20::1/64 dev lan0")
	}
	lay()
	const lan = "[uwsgi]\nnetwork = bridge:lan0\ncommand = AGENT\n"
	r.drop("blog", bridgedVassal)
	r.drop("shop", lan)
	r.drop("wiki", lan)
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	wiki := r.reach("wiki")
	r.answersNames(blog, []string{"10.100.0.1", "fd10::1"}, "blog.br0", dns.TypeA, addressOf(t, blog, 32).String())
	r.answersNames(shop, []string{"203.0.113.10", "fd20::1"}, "wiki", dns.TypeA, addressOf(t, wiki, 32).String())
	pid := r.responderPID()

	r.Run(t, "sh", "-ec", "ip addr add 203.0.114.1/24 dev lan0; ip addr del 203.0.113.10/24 dev lan0; ip addr add 203.0.113.11/24 dev lan0")
	r.answersNames(shop, []string{"203.0.113.11"}, "wiki", dns.TypeA, addressOf(t, wiki, 32).String())
	nettest.Eventually(t, patience, "shop is told whom to ask", func() bool {
		return strings.Contains(r.mustSh(shop, "cat /etc/resolv.conf"), "nameserver 203.0.113.11\n")
	})

	r.Run(t, "ip", "link", "del", "lan0")
	nettest.Eventually(t, patience, "its sockets are gone", func() bool {
		return !strings.Contains(r.Run(t, "sh", "-c", "ss -Hlnu; ss -Hlnt"), "203.0.11")
	})
	r.answersNames(blog, []string{"10.100.0.1", "fd10::1"}, "blog.br0", dns.TypeA, addressOf(t, blog, 32).String())
	lay()
	r.mustRun("restart", "shop", "wiki")
	for _, name := range []string{"shop", "wiki"} {
		r.await(name, "is another generation", func(s emperor.Status) bool {
			return s.State == emperor.Running && s.PID != shop.PID && s.PID != wiki.PID
		})
	}
	shop, wiki = r.reach("shop"), r.reach("wiki")
	r.answersNames(shop, []string{"203.0.113.10", "fd20::1"}, "wiki", dns.TypeA, addressOf(t, wiki, 32).String())
	if r.responderPID() != pid {
		t.Error("another responder")
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil { // lan0 is another one now
		t.Fatal(err)
	}
	r.wait()
}

// Where somebody else answers in a bridge that was there before, he goes on for his
// own machines, and vassals' questions are led past him.
func TestNamesBesideAnotherResolverInABridge(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	r := layRealm(t, w, "emperor", nativeNetwork)
	lan := nettest.NewNS(t)
	nettest.Veth(t, nettest.End{NS: r.Host, Name: "port0"},
		nettest.End{NS: lan, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/24"), netip.MustParsePrefix("fd20::9/64")}})
	r.Run(t, "sh", "-ec", "ip link add lan0 address 02:11:22:33:44:55 type bridge; ip link set lan0 addrgenmode none; ip link set port0 master lan0; ip link set lan0 up; ip addr add 203.0.113.10/24 dev lan0; ip addr add fd20::1/64 nodad dev lan0")
	theirs := func(c dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"theirs"}}}
		_ = c.WriteMsg(m)
	}
	nettest.Eventually(t, patience, "the bridge's addresses are in force", func() bool { // once it has a carrier
		return strings.Contains(r.Run(t, "ip", "-6", "route", "show", "table", "local", "dev", "lan0"), "local fd20::1 ")
	})
	resolver(t, r.Host, netip.MustParseAddr("203.0.113.10"), theirs)
	resolver(t, r.Host, netip.MustParseAddr("fd20::1"), theirs)
	r.drop("blog", "[uwsgi]\nnetwork = bridge:lan0\ncommand = AGENT\n")
	r.drop("shop", "[uwsgi]\nnetwork = bridge:lan0\ncommand = AGENT\n")
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	both := []string{"203.0.113.10", "fd20::1"}
	for range 2 {
		r.answersNames(blog, both, "shop", dns.TypeA, addressOf(t, shop, 32).String())
		for _, server := range both {
			for _, proto := range []string{"udp", "tcp"} {
				if got := said(digs(t, lan.Handle, proto, server, query("shop.fiefdom.internal", dns.TypeTXT))); got != `"theirs"` {
					t.Errorf("a machine of the bridge hears %q from %s by %s", got, server, proto)
				}
			}
		}
		r.die()
		r.start()
		r.quiet()
	}
	r.stop(syscall.SIGTERM)
}

// Machines beside vassals in a bridge get nothing from the responder, and a bridge
// may have no names at all.
func TestWhoAsksInVainInAKernelBridge(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", noNetwork+"bridge = lan0\nbridge = br1 10.101.0.1/24\nbridge-names = off\n")
	lan := nettest.NewNS(t)
	nettest.Veth(t, nettest.End{NS: r.Host, Name: "port0"}, nettest.End{NS: lan, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/24")}})
	r.Run(t, "sh", "-ec", "ip link add lan0 address 02:11:22:33:44:55 type bridge; ip link set lan0 addrgenmode none; ip link set port0 master lan0; ip link set lan0 up; ip addr add 203.0.113.10/24 dev lan0")
	r.drop("blog", "[uwsgi]\nnetwork = bridge:lan0\ncommand = AGENT\n")
	r.drop("wiki", "[uwsgi]\nnetwork = bridge:br1\ncommand = AGENT\n")
	r.start()
	blog, wiki := r.reach("blog"), r.reach("wiki")
	r.answersNames(blog, []string{"203.0.113.10"}, "blog.lan0", dns.TypeA, addressOf(t, blog, 32).String())
	q := nameQuestion{of: "blog", proto: "udp", server: netip.MustParseAddr("203.0.113.10"), address: blog.Addresses[0]}
	lan.Do(t, func() {
		if got := q.ask("blog.lan0"); got != silent {
			t.Errorf("a machine of the bridge is answered: %s", got)
		}
	})
	if got := r.mustSh(wiki, "cat /etc/resolv.conf"); strings.Contains(got, "10.101.0.1") || strings.Contains(got, "fiefdom") {
		t.Errorf("without names: %s", got)
	}
	if out := r.Run(t, "sh", "-c", "ss -Hlnu; ss -Hlnt"); strings.Contains(out, "10.101.0.1") {
		t.Errorf("without names: %s", fmt.Sprint(out))
	}
	r.stop(syscall.SIGTERM)
}
