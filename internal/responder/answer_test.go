package responder

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
)

// What a message asks for beside the name decides what it gets.
func TestFormOfAnswers(t *testing.T) {
	s := at{newTestServer(landWith(resolvers...), func(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
		m := reply(q, 60, "203.0.113.1")
		for i := range 100 {
			m.Answer = append(m.Answer, &dns.A{Hdr: *m.Answer[0].Header(), A: []byte{203, 0, 113, byte(i)}})
		}
		m.SetEdns0(4096, true)
		return m, nil
	}), "fief0"}
	for _, c := range []struct {
		name   string
		change func(*dns.Msg)
		udp    bool
		want   string // rcode, truncated, bytes at most, EDNS
	}{
		{"plain", func(*dns.Msg) {}, true, "NOERROR true 512 false"},
		{"EDNS", func(q *dns.Msg) { q.SetEdns0(1000, false) }, true, "NOERROR true 1000 true"},
		{"EDNS, too much", func(q *dns.Msg) { q.SetEdns0(65535, false) }, true, "NOERROR true 1232 true"},
		{"EDNS, too little", func(q *dns.Msg) { q.SetEdns0(1, false) }, true, "NOERROR true 512 true"},
		{"TCP", func(*dns.Msg) {}, false, "NOERROR false 65535 false"},
		{"EDNS of another time", func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(1) }, true, dns.RcodeToString[dns.RcodeBadVers] + " false 512 true"},
		{"chaos", func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }, true, "REFUSED false 512 false"},
		{"any", func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeANY }, true, "REFUSED false 512 false"},
		{"transfer", func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAXFR }, true, "REFUSED false 512 false"},
		{"notify", func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }, true, "NOTIMP false 512 false"},
		{"no recursion", func(q *dns.Msg) { q.RecursionDesired = false }, true, "REFUSED false 512 false"},
	} {
		q := ask("many.example.")
		c.change(q)
		m := s.answer(q, asShop)
		fit(m, q, c.udp)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(c.name, err)
		}
		var back dns.Msg
		if err := back.Unpack(b); err != nil {
			t.Fatal(c.name, err)
		}
		opt := back.IsEdns0()
		var most int
		_, _ = fmt.Sscanf(c.want, "%s %t %d", new(string), new(bool), &most)
		if got := fmt.Sprintf("%s %t %d %t", dns.RcodeToString[back.Rcode], back.Truncated, most, opt != nil); got != c.want || len(b) > most {
			t.Errorf("%s: %s with %d bytes, want %s", c.name, got, len(b), c.want)
		}
		if !c.udp && len(back.Answer) != 101 {
			t.Errorf("%s: %d records", c.name, len(back.Answer))
		}
	}
	if m := s.answer(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: ask("a.").Question}, asShop); m != nil {
		t.Errorf("an answer is answered: %v", m)
	}
}

func TestHostConf(t *testing.T) {
	dir := t.TempDir()
	path, stub := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "stub")
	behind := "nameserver 192.0.2.3\nnameserver fe80::1%eth7\n"
	for _, c := range []struct{ text, behind, want string }{
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch Example.org. corp\n", behind, "{[192.0.2.1:53 [2001:db8::1]:53] [example.org corp]}"},
		{"nameserver 127.0.0.53\noptions edns0\nsearch lan\n", behind, "{[192.0.2.3:53 [fe80::1%eth7]:53] [lan]}"},
		{"nameserver 127.0.0.53\n", "", "{[127.0.0.53:53] []}"}, // no systemd's: who listens there can be asked
		{"nameserver 127.0.0.1\n", behind, "{[127.0.0.1:53] []}"},
		{"nameserver nonsense\nnameserver 0.0.0.0\ndomain x\n", behind, "{[] [x]}"},
		{"", behind, "{[] []}"},
	} {
		for path, text := range map[string]string{path: c.text, stub: c.behind} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(readConf(path, stub)); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
	if got := readConf(filepath.Join(dir, "none"), stub); len(got.Resolvers) > 0 {
		t.Errorf("without a file: %v", got)
	}
}

// Nothing about a vassal's name is asked of a resolver, whoever asks and for whatever,
// but what zones have: the name may be one of the world's domains.
func TestNoResolverHearsOfVassals(t *testing.T) {
	var asked []string
	f := land
	f.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}
	s := at{newTestServer(&f, func(_ context.Context, _ netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
		asked = append(asked, m.Question[0].String())
		return new(dns.Msg).SetReply(m), nil
	}), "fief0"}
	for _, who := range []Asker{asShop, asWiki} {
		s.network = who.Network
		for _, c := range []struct {
			qtype uint16
			leaks bool
		}{{dns.TypeA, false}, {dns.TypeAAAA, false}, {dns.TypeMX, false}, {dns.TypeHTTPS, false}, {dns.TypeTXT, false}, {dns.TypeNS, true}, {dns.TypeDS, true}} {
			for _, name := range []string{"shop.", "shop.fief0."} {
				s.forward.cache.entries.Purge()
				q := ask(name)
				q.Question[0].Qtype = c.qtype
				asked = nil
				m := s.answer(q, who)
				leaks := c.leaks && name == "shop."
				if leaks != (len(asked) > 0) {
					t.Errorf("%v asks for %s %s: resolvers are asked %v", who, dns.TypeToString[c.qtype], name, asked)
				}
				if want := map[bool]int{true: dns.RcodeSuccess, false: dns.RcodeNameError}[who == asShop]; !leaks && m.Rcode != want {
					t.Errorf("%v asks for %s %s: %s", who, dns.TypeToString[c.qtype], name, dns.RcodeToString[m.Rcode])
				}
			}
		}
	}
}
