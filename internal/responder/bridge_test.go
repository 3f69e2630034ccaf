package responder

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/internal/nettest"
)

// bridges has a bridge of ours and one of others', where a vassal is beside their machines.
var bridges = Feed{
	Networks: []Network{
		{Name: "br0", Pool: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/24")}, Own: addrs("10.100.0.1"), Bridge: true},
		{Name: "lan0", Own: addrs("192.0.2.10"), Bridge: true},
	},
	Vassals: []Vassal{
		{Name: "blog", On: []Access{{"br0", addrs("10.100.0.7")}}},
		{Name: "shop", On: []Access{{"lan0", addrs("192.0.2.20")}}},
		{Name: "both", On: []Access{{"br0", addrs("10.100.0.9")}, {"lan0", addrs("192.0.2.21")}}},
	},
}

// In a bridge vassals alone are heard, and others' addresses are others' business.
func TestWhoAsksInABridge(t *testing.T) {
	z := newZone(&bridges)
	blog, shop := Asker{"br0", netip.MustParseAddr("10.100.0.7")}, Asker{"lan0", netip.MustParseAddr("192.0.2.20")}
	for _, c := range []struct {
		asker Asker
		want  bool
	}{
		{blog, true},
		{shop, true},
		{asHost, true},
		{Asker{"br0", netip.MustParseAddr("10.100.0.66")}, false},
		{Asker{"lan0", netip.MustParseAddr("192.0.2.1")}, false},
		{Asker{"lan0", blog.Addr}, false},
	} {
		if got := z.admits(c.asker); got != c.want {
			t.Errorf("%v: %v", c.asker, got)
		}
	}
	for _, c := range []struct {
		asker Asker
		addr  string
		name  string
		want  verdict
	}{
		{shop, "192.0.2.21", "both", known},
		{shop, "192.0.2.1", "", notOurs}, // a printer, whose name the host's resolver knows
		{blog, "192.0.2.20", "", unknown},
		{shop, "10.100.0.66", "", unknown},
	} {
		a := netip.MustParseAddr(c.addr)
		if name, v := z.reverse(netip.PrefixFrom(a, a.BitLen()), c.asker); name != c.name || v != c.want {
			t.Errorf("the name of %s for %v: %q, %v", c.addr, c.asker, name, v)
		}
	}
}

// Sockets come and go while a process runs, which goes on.
func TestSocketsThatComeAndGo(t *testing.T) {
	r := newRig(t, &land, good)
	pid := r.pid.Load()
	c := r.dial(t, "udp", good)
	asked := func() error {
		_, err := asks(c, query("blog."), again)
		return err
	}
	eventually := func(what string, answered bool) {
		t.Helper()
		nettest.Eventually(t, 20*time.Second, what, func() bool { return (asked() == nil) == answered })
	}
	eventually("an answer", true)
	all := r.sockets
	r.Use(all[1:]) // without UDP for vassals
	eventually("no answer any more", false)
	again := all[0]
	again.id = lastID.Add(1) // to the process it is another one
	r.Use(append(slices.Clip(all[1:]), again))
	eventually("an answer", true)
	if m, err := asks(r.dial(t, "tcp", good), query("blog."), time.Second); err != nil || m.Rcode != dns.RcodeSuccess {
		t.Errorf("by TCP: %v %v", m, err)
	}
	if r.pid.Load() != pid {
		t.Error("it was another process")
	}
}

// More sockets than one message brings all come.
func TestVeryManySockets(t *testing.T) {
	r := newRig(t, &land, good)
	all := r.sockets
	for range 2*maxNew + 1 {
		s := all[0]
		s.id = lastID.Add(1)
		all = append(slices.Clip(all), s)
	}
	r.Use(all[len(r.sockets):])
	nettest.Eventually(t, 20*time.Second, "the last of them is read", func() bool {
		r.Use(all[len(all)-1:])
		_, err := asks(r.dial(t, "udp", good), query("blog."), again)
		return err == nil
	})
	if len(r.served) > 0 {
		t.Error("it was another process")
	}
}
