package nat

import (
	"context"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// site is a host with a pool behind a device, in namespaces of the test's own:
//
//	pool ── fief0 HOST eth0 ── inet          all with IPv4 and IPv6
//	                   eth1 ── lan
//
// A veth stands in for the router's device. Inet and lan know no way to the
// pool; lan has its default route through the host.
type site struct {
	host, pool, inet, lan *nettest.NS
}

const (
	inet4, inet6 = "198.51.100.2", "2001:db8:198::2"
	host4, host6 = "198.51.100.1", "2001:db8:198::1"
	lan4, lan6   = "192.0.2.2", "2001:db8:192::2"
	pool4, pool6 = "10.9.0.7", "fd00:9::7"
	gate4, gate6 = "10.9.0.1", "fd00:9::1"
)

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{host: nettest.NewNS(t), pool: nettest.NewNS(t), inet: nettest.NewNS(t), lan: nettest.NewNS(t)}
	s.host.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
	s.connect(t, "fief0", gate4+"/16", gate6+"/64", s.pool, pool4+"/16", pool6+"/64")
	for _, gw := range []string{gate4, gate6} {
		s.pool.Route(t, netip.MustParseAddr(gw))
	}
	s.outside(t)
	return s
}

func (s *site) connect(t *testing.T, dev, host4, host6 string, ns *nettest.NS, other4, other6 string) {
	t.Helper()
	nettest.Veth(t,
		nettest.End{NS: s.host, Name: dev, Addrs: prefixes(host4, host6)},
		nettest.End{NS: ns, Name: "eth0", Addrs: prefixes(other4, other6)})
}

// outside connects the host with what is not the pool.
func (s *site) outside(t *testing.T) {
	t.Helper()
	s.connect(t, "eth0", host4+"/24", host6+"/64", s.inet, inet4+"/24", inet6+"/64")
	s.connect(t, "eth1", "192.0.2.1/24", "2001:db8:192::1/64", s.lan, lan4+"/24", lan6+"/64")
	for _, gw := range []string{"192.0.2.1", "2001:db8:192::1"} {
		s.lan.Route(t, netip.MustParseAddr(gw))
	}
	for _, gw := range []string{inet4, inet6} {
		s.host.Route(t, netip.MustParseAddr(gw))
	}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

func network() Network {
	return Network{Device: "fief0", Pool: prefixes("10.9.0.0/16", "fd00:9::/64"), Gateways: addrs(gate4, gate6), Masquerade: Auto}
}

// newHost makes a Host in the namespace.
func newHost(t *testing.T, ns *nettest.NS, instance, dir string) (h *Host) {
	t.Helper()
	ns.Do(t, func() {
		var err error
		if h, err = New(instance, dir, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
			t.Fatal(err)
		}
	})
	return h
}

func apply(t *testing.T, ns *nettest.NS, h *Host, nets ...Network) {
	t.Helper()
	ns.Do(t, func() {
		if err := h.Apply(nets); err != nil {
			t.Fatal(err)
		}
	})
}

func remove(t *testing.T, ns *nettest.NS, h *Host) {
	t.Helper()
	ns.Do(t, func() {
		if err := h.Remove(); err != nil {
			t.Fatal(err)
		}
	})
}

// watch runs h.Watch in the namespace until the test ends or stop is called.
func watch(t *testing.T, ns *nettest.NS, h *Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ns.Do(t, func() {
			if err := h.Watch(ctx); err != nil {
				t.Errorf("watch: %v", err)
			}
		})
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// reaches tries one ping. An answer is waited for longer where one is wanted.
func reaches(t *testing.T, from *nettest.NS, to, wait string) bool {
	t.Helper()
	return strings.Contains(from.Run(t, "sh", "-c", "ping -n -c1 -W"+wait+" "+to+" || true"), "1 received")
}

func wantReach(t *testing.T, want bool, from *nettest.NS, to ...string) {
	t.Helper()
	wait := "0.2"
	if want {
		wait = "5"
	}
	for _, addr := range to {
		if got := reaches(t, from, addr, wait); got != want {
			t.Errorf("reaches %s: %v, want %v", addr, got, want)
		}
	}
}

// counters and comments of iptables-save differ from one call to the next.
var noise = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`)

// rules returns all of both families' rules, without counters.
func rules(t *testing.T, ns *nettest.NS) string {
	t.Helper()
	return noise.ReplaceAllString(ns.Run(t, "iptables-save")+ns.Run(t, "ip6tables-save"), "")
}

// foreign is what rules has of others than us.
func foreign(t *testing.T, ns *nettest.NS) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(rules(t, ns)) {
		if !strings.Contains(line, chainPrefix) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func sysctl(t *testing.T, ns *nettest.NS, name string) string {
	t.Helper()
	return strings.TrimSpace(ns.Run(t, "cat", "/proc/sys/net/"+name))
}

const soon = 2 * time.Second
