package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	vnetns "github.com/vishvananda/netns"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// reachIni is an emperor's ini with all kinds of networks.
const reachIni = `[uwsgi]
emperor = /run/t/vassals
tuntap-router-nat = auto
tuntap-router-direct = DIRECT
tuntap-router = fief0 /run/fiefdom/emperor/fief0.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router-address = fd09::1/64
tuntap-router-attach = all
tuntap-router = fief1 /run/fiefdom/emperor/fief1.sock
tuntap-router-address = 10.10.0.1/24
tuntap-router-address = fd10::1/64
tuntap-router-firewall-out = allow 10.10.0.7 10.9.0.0/16
tuntap-router-firewall-out = allow fd10::7 fd09::/64
tuntap-router = open0 /run/fiefdom/emperor/open0.sock
tuntap-router-address = 10.11.0.1/24
tuntap-router-address = fd11::1/64
tuntap-router-isolate = off
bridge = br0 10.100.0.1/24 fd64::1/64
bridge = br1 10.101.0.1/24 fd65::1/64
bridge-isolate = off
`

// The addresses of the host's second cable.
var (
	secondAddrs    = [2]netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:203::1")}
	neighbourAddrs = [2]netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:203::2")}
	hostAddrs      = [2]netip.Addr{nettest.HostAddr4, nettest.HostAddr6}
	loopbackAddrs  = [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
)

// reachRealm is a realm with the vassals of the table, and two machines.
type reachRealm struct {
	*realm
	neighbour    *nettest.NS
	vassals      map[string]emperor.Status
	bridgeFilter bool
}

// newReachRealm starts one; bridgeFilter has iptables see what bridges switch, as
// Docker does (br_netfilter).
func newReachRealm(t *testing.T, direct string, bridgeFilter bool) *reachRealm {
	t.Helper()
	r := &reachRealm{bridgeFilter: bridgeFilter, realm: layRealm(t, nettest.NewWorld(t), "emperor", strings.ReplaceAll(reachIni, "DIRECT", direct))}
	r.neighbour = nettest.NewNS(t)
	end := func(ns *nettest.NS, name string, addrs [2]netip.Addr) nettest.End {
		return nettest.End{NS: ns, Name: name, Addrs: []netip.Prefix{netip.PrefixFrom(addrs[0], 24), netip.PrefixFrom(addrs[1], 64)}}
	}
	nettest.Veth(t, end(r.Host, "eth1", secondAddrs), end(r.neighbour, "eth0", neighbourAddrs))
	// Both would find the vassals, if the host let them.
	r.Inet.Route(t, hostAddrs[0])
	r.Inet.Route(t, hostAddrs[1])
	r.neighbour.Route(t, secondAddrs[0])
	r.neighbour.Route(t, secondAddrs[1])
	// The host's resolver: it knows nobody.
	resolver(t, r.Inet, nettest.InetAddr4, func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError)) })
	value := map[bool]string{true: "1", false: "0"}[bridgeFilter]
	r.Run(t, "sh", "-c", "cd /proc/sys/net/bridge && echo "+value+" >bridge-nf-call-iptables && echo "+value+" >bridge-nf-call-ip6tables || [ ! -d /proc/sys/net/bridge ]")
	inis := map[string]string{
		"near":   "network = fief0\n",
		"far":    "network = fief1\n",
		"friend": "network = fief1\ntuntap-device-address = 10.10.0.7 fd10::7\n",
		"stall":  "network = open0\n",
		"beside": "network = bridge:br0\n",
		"over":   "network = bridge:br1\n",
		"across": "network = bridge:br1\n",
		"blog":   "network = fief0\n",
		"shop":   "network = open0\n",
		"wiki":   "network = bridge:br0\n",
		"alone":  "network = none\n",
	}
	for _, g := range reachGroups {
		for _, p := range g.publish {
			before, from, _ := strings.Cut(p, " ")
			inis[g.of] += fmt.Sprintf("publish = %s\npublish = %s/udp %s\n", p, before, from)
		}
	}
	for name, text := range inis {
		r.drop(name, "[uwsgi]\ncommand = AGENT 8000 udp\n"+text)
	}
	r.drop("proxy", "[uwsgi]\ncommand = AGENT 8800 udp\nnetwork = host\n")
	r.start()
	r.vassals = map[string]emperor.Status{}
	for name := range inis {
		if name == "alone" {
			r.vassals[name] = r.awaitState(name, emperor.Running)
		} else {
			r.vassals[name] = r.reach(name)
		}
	}
	r.vassals["proxy"] = r.awaitState("proxy", emperor.Running)
	return r
}

// asker is the network namespace that a column stands for.
func (r *reachRealm) asker(c column, of string) vnetns.NsHandle {
	// who asks, by the network of the vassal that is asked
	vassal := map[string][columns]string{
		"blog":  {fromSame: "near", fromOther: "far", fromLetIn: "friend", fromOpen: "stall", fromBridge: "beside", fromItself: "blog"},
		"shop":  {fromSame: "stall", fromOther: "near", fromBridge: "beside", fromItself: "shop"},
		"wiki":  {fromSame: "beside", fromOther: "near", fromOpen: "stall", fromBridge: "over", fromItself: "wiki"},
		"over":  {fromSame: "across", fromOther: "near", fromOpen: "stall", fromBridge: "beside", fromItself: "over"},
		"proxy": {fromOther: "near", fromOpen: "stall", fromBridge: "beside", fromItself: "proxy"},
	}[of][c]
	switch c {
	case fromMachine:
		return r.Inet.Handle
	case fromNeighbour:
		return r.neighbour.Handle
	case fromHost:
		return r.Host.Handle
	}
	return r.jailOf(r.vassals[vassal])
}

// routers are the router's addresses in a vassal's network.
var routers = map[string][2]netip.Addr{
	"blog": addrs2("10.9.0.1", "fd09::1"),
	"shop": addrs2("10.11.0.1", "fd11::1"),
	"far":  addrs2("10.10.0.1", "fd10::1"),
	"wiki": addrs2("10.100.0.1", "fd64::1"),
	"over": addrs2("10.101.0.1", "fd65::1"),
}

func addrs2(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

// where is an address of a family, 0 or 1.
func (r *reachRealm) where(of string, at spot, family int) netip.Addr {
	switch at {
	case atHost:
		return hostAddrs[family]
	case atHost2:
		return secondAddrs[family]
	case atLoopback:
		return loopbackAddrs[family]
	case atRouter:
		return routers[of][family]
	}
	all := r.vassals[of].Addresses
	return all[slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is6() == (family == 1) })]
}

// Every way to reach a vassal, from everywhere, is as the table says.
func TestWhoReachesWhat(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		direct string
		filter bool
	}{{"on", false}, {"off", true}} {
		t.Run("direct "+kind.direct, func(t *testing.T) {
			t.Parallel()
			r := newReachRealm(t, kind.direct, kind.filter)
			r.compare(t)
			r.compareNames(t)
			r.compareWithoutJail(t)
		})
	}
}

// compare asks for all that the table has, at once.
func (r *reachRealm) compare(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	turns := make(chan struct{}, 200)
	for _, g := range reachGroups {
		for _, row := range g.rows {
			want := strings.Fields(row.want)
			if len(want) != int(columns) {
				t.Fatalf("%v has %d columns", row, len(want))
			}
			for c := range columns {
				if want[c] == noCase {
					continue
				}
				from := r.asker(c, g.of)
				for _, proto := range row.protos() {
					for _, family := range row.families() {
						q := question{from: from, proto: proto, to: netip.AddrPortFrom(r.where(g.of, row.at, family), row.port), router: routers[g.of][family]}
						want := want[c]
						if r.bridgeFilter && g.of == "wiki" && row.at == atLoopback && family == 1 {
							want = silent // the answer has become ::1's before it leaves the bridge (ip6_rcv)
						}
						wg.Go(func() {
							turns <- struct{}{}
							defer func() { <-turns }()
							if got := askUntil(want, q.ask); got != want {
								t.Errorf("%s %q at %s from %s, %s %s: %s, want %s", g.of, g.publish, row.at, columnNames[c], proto, q.to, got, want)
							}
						})
					}
				}
			}
		}
	}
	wg.Wait()
}

// compareWithoutJail: a vassal without a network reaches nobody but itself, and one
// in the host's network is there.
func (r *reachRealm) compareWithoutJail(t *testing.T) {
	t.Helper()
	alone := r.jailOf(r.vassals["alone"])
	for family := range 2 {
		for _, proto := range []string{"tcp", "udp"} {
			q := question{from: alone, proto: proto, to: netip.AddrPortFrom(loopbackAddrs[family], 8000)}
			if got := askUntil(own, q.ask); got != own {
				t.Errorf("a vassal without a network reaches itself: %s", got)
			}
			for _, a := range []netip.Addr{hostAddrs[family], r.where("blog", atRouter, family), r.where("blog", atApp, family)} {
				q.to = netip.AddrPortFrom(a, 8080)
				if got := q.ask(); !strings.Contains(got, "network is unreachable") {
					t.Errorf("a vassal without a network asks %s: %s", a, got)
				}
			}
		}
	}
	if !r.jailOf(r.vassals["proxy"]).Equal(r.Host.Handle) {
		t.Error("a vassal of the host's network is elsewhere")
	}
}

// question is one to an agent: which address does it see?
type question struct {
	from   vnetns.NsHandle
	proto  string
	to     netip.AddrPort
	router netip.Addr
}

// silence is how long nothing has to come to be told from an answer.
const silence = 1500 * time.Millisecond

// askUntil asks until it is as wanted, or patience ends: the machine may be busy.
// What shall not be answered is asked once.
func askUntil(want string, ask func() string) (got string) {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if got = ask(); got == want || want == silent || time.Now().After(end) {
			return got
		}
	}
}

// ask asks once, and says what came of it.
func (q *question) ask() string {
	var c net.Conn
	err := netns.Do(q.from, func() (err error) {
		c, err = net.DialTimeout(q.proto, q.to.String(), silence)
		return err
	})
	if err != nil {
		return whatFailed(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(silence))
	answer := make([]byte, 1500)
	n := 0
	if _, err = io.WriteString(c, "GET /peer HTTP/1.0\r\n\r\n"); err == nil && q.proto == "tcp" {
		answer, err = io.ReadAll(c)
		n = len(answer)
	} else if err == nil {
		n, err = c.Read(answer)
	}
	if err != nil {
		return whatFailed(err)
	}
	text := string(answer[:n])
	if _, body, ok := strings.Cut(text, "\r\n\r\n"); ok {
		text = body
	}
	switch seen, err := netip.ParseAddr(text); {
	case err != nil:
		return fmt.Sprintf("the answer %q", answer[:n])
	case seen == netip.MustParseAddrPort(c.LocalAddr().String()).Addr():
		return own
	case seen == q.router:
		return masked
	}
	return "as " + text
}

func whatFailed(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.As(err, &late) && late.Timeout():
		return silent
	}
	return err.Error()
}
