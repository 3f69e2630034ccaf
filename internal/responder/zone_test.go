package responder

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// land has two networks. Blog is on both, shop and the site on one each.
var land = Feed{
	Networks: []Network{
		{Name: "fief0", Pool: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd00:9::/64")}, Own: addrs("10.9.0.1", "fd00:9::1")},
		{Name: "fief1", Pool: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/20")}, Own: addrs("10.10.0.1")},
	},
	Vassals: []Vassal{
		{Name: "Blog", On: []Access{{"fief1", addrs("10.10.0.7")}, {"fief0", addrs("10.9.0.7", "fd00:9::7")}}},
		{Name: "shop", On: []Access{{"fief0", addrs("10.9.0.8")}}},
		{Name: "Shop", On: []Access{{"fief0", addrs("10.9.0.9")}}},
		{Name: "mail", On: []Access{{"fief0", addrs("10.9.0.10")}}, Nameless: true},
		{Name: "Mail", On: []Access{{"fief0", addrs("10.9.0.11")}}},
		{Name: "wiki.example", On: []Access{{"fief1", addrs("10.10.0.8")}}},
		{Name: "cunning.fief0", On: []Access{{"fief1", addrs("10.10.0.66")}}},
		{Name: "localhost", On: []Access{{"fief0", addrs("10.9.0.67")}}},
		{Name: "not a name", On: []Access{{"fief0", addrs("10.9.0.68")}}},
	},
}

var (
	asBlog0 = Asker{"fief0", netip.MustParseAddr("10.9.0.7")}
	asBlog1 = Asker{"fief1", netip.MustParseAddr("10.10.0.7")}
	asShop  = Asker{"fief0", netip.MustParseAddr("10.9.0.8")}
	asWiki  = Asker{"fief1", netip.MustParseAddr("10.10.0.8")}
	asOther = Asker{"fief0", netip.MustParseAddr("10.9.200.1")} // whose name nobody knows
	asHost  = Asker{"", netip.MustParseAddr("10.9.0.1")}
)

// Who may see which name, and how it is written.
func TestWhoSeesWhom(t *testing.T) {
	z := newZone(&land)
	const other, none = "forwarded", "no such name"
	for _, c := range []struct {
		asker Asker
		name  string
		want  string
	}{
		{asShop, "blog", "10.9.0.7 fd00:9::7"},
		{asWiki, "blog", "10.10.0.7"},
		{asHost, "blog", "10.10.0.7 10.9.0.7 fd00:9::7"},
		{asOther, "blog", "10.9.0.7 fd00:9::7"},
		{asBlog0, "blog", "10.9.0.7 fd00:9::7 10.10.0.7"}, // nearest first
		{asBlog1, "blog", "10.10.0.7 10.9.0.7 fd00:9::7"},
		{asBlog1, "blog.fief0", "10.9.0.7 fd00:9::7"},
		{asBlog1, "blog.fief0.fiefdom.internal", "10.9.0.7 fd00:9::7"},
		{asWiki, "blog.fief0", none}, // it is not on that network
		{asWiki, "shop", none},       // and no resolver hears of it
		{asWiki, "shop.fiefdom.internal", none},
		{asShop, "shop", "10.9.0.8"}, // not Shop's
		{asShop, "mail", "10.9.0.11"},
		{asShop, "shop.fief1", none},
		{asWiki, "wiki.example", other}, // the world has that one, too
		{asWiki, "wiki.example.fiefdom.internal", "10.10.0.8"},
		{asWiki, "wiki.example.fief1", "10.10.0.8"},
		{asWiki, "example.fiefdom.internal", ""},
		{asShop, "cunning.fief0", none},
		{asHost, "cunning.fief0.fiefdom.internal", none},
		{asHost, "cunning.fief0.fief1.fiefdom.internal", none},
		{asShop, "localhost", "127.0.0.1 ::1"},
		{asShop, "x.localhost", "127.0.0.1 ::1"},
		{asShop, "localhost.fiefdom.internal", none},
		{asShop, "fiefdom.internal", ""},
		{asShop, "fief0.fiefdom.internal", ""},
		{asShop, "fief1.fiefdom.internal", none},
		{asShop, "nobody.fiefdom.internal", none},
		{asShop, "blog.fiefdom.internal.example.org", none}, // a search list's leavings
		{asShop, "internal", other},
		{asShop, "example.org", other},
		{asShop, "", other},
	} {
		found, v := z.lookup(c.name, c.asker)
		var words []string
		for _, a := range found {
			words = append(words, a.String())
		}
		got := strings.Join(words, " ")
		switch v {
		case notOurs:
			got = other
		case unknown:
			got = none
		}
		if got != c.want {
			t.Errorf("%s for %v: %q, want %q", c.name, c.asker, got, c.want)
		}
	}
}

func TestReverse(t *testing.T) {
	z := newZone(&land)
	for _, c := range []struct {
		asker Asker
		name  string // before .arpa
		want  string
	}{
		{asShop, "7.0.9.10.in-addr", "blog"},
		{asBlog0, "7.0.10.10.in-addr", "blog"},
		{asShop, "7.0.10.10.in-addr", "none"}, // of a network that it is not on
		{asHost, "8.0.10.10.in-addr", "wiki.example"},
		{asShop, "9.0.9.10.in-addr", "none"}, // Shop has no name
		{asShop, "68.0.9.10.in-addr", "none"},
		{asShop, "10.0.9.10.in-addr", "none"},
		{asShop, "11.0.9.10.in-addr", "mail"},
		{asShop, "99.99.9.10.in-addr", "none"},
		{asShop, "9.10.in-addr", ""},
		{asShop, "0.9.10.in-addr", ""},
		{asShop, "10.in-addr", "forwarded"},
		{asShop, "10.10.in-addr", "forwarded"}, // the pool is a part of it
		{asShop, "7.0.9.010.in-addr", "forwarded"},
		{asShop, "1.2.3.4.5.in-addr", "forwarded"},
		{asShop, "256.0.9.10.in-addr", "forwarded"},
		{asShop, "8.8.8.8.in-addr", "forwarded"},
		{asShop, "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6", "blog"},
		{asShop, "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6", "none"},
		{asShop, "0.0.0.0.9.0.0.0.0.0.d.f.ip6", "forwarded"},
		{asShop, "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6", ""},
	} {
		p, ok := reversed(c.name + ".arpa")
		got := "forwarded"
		if ok {
			name, v := z.reverse(p, c.asker)
			switch v {
			case unknown:
				got = "none"
			case known:
				got = name
			}
		}
		if got != c.want {
			t.Errorf("%s for %v: %q, want %q", c.name, c.asker, got, c.want)
		}
	}
}

// Only who is in the pool is an asker, by the socket of his network; and the host.
func TestWhoMayAsk(t *testing.T) {
	z := newZone(&land)
	for _, c := range []struct {
		asker Asker
		want  bool
	}{
		{asShop, true},
		{asHost, true},
		{Asker{"fief1", asShop.Addr}, false},
		{Asker{"fief0", netip.MustParseAddr("192.0.2.1")}, false},
		{Asker{"fief7", asShop.Addr}, false},
	} {
		if got := z.admits(c.asker); got != c.want {
			t.Errorf("%v: %v", c.asker, got)
		}
	}
}

func TestHostName(t *testing.T) {
	for name, want := range map[string]string{
		"blog": "blog", "Blog": "blog", "my_app-2": "my_app-2", "example.com": "example.com", "": "", "a b": "", "-a": "", "a-": "", "a..b": "",
		".a": "", "ünï": "", "a\x00b": "", "localhost": "", "x.localhost": "", strings.Repeat("x", 64): "", strings.Repeat("x.", 101) + "x": "",
	} {
		if got := HostName(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// The properties that hold for whatever a stranger asks.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"shop.", "7.0.9.10.in-addr.arpa.", "example.org.", "fiefdom.internal.", "a\\.b.fief0.", "."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY} {
			q := new(dns.Msg)
			q.SetQuestion(name, qtype)
			q.SetEdns0(4096, true)
			b, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01")) // a name that points at itself
	s := at{newTestServer(&land, nil), "fief0"}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		reply := s.answer(q, asShop)
		if reply == nil {
			return
		}
		if reply.Id != q.Id || !reply.Response || len(reply.Question) != 1 || reply.Question[0] != q.Question[0] {
			t.Fatalf("%v is no answer to %v", reply, q)
		}
		for _, udp := range []bool{true, false} {
			m := reply.Copy()
			fit(m, q, udp)
			packed, err := m.Pack()
			if err != nil {
				t.Fatalf("%v: %v", m, err)
			}
			if udp && len(packed) > maxUDP {
				t.Fatalf("%d bytes by UDP", len(packed))
			}
		}
	})
}
