package responder

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// upstream serves DNS on loopback by UDP and, at the same port, by TCP.
func upstream(t *testing.T, udp, tcp dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	for range 20 {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", c.LocalAddr().String())
		if err != nil { // somebody else has that port
			c.Close()
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: c, Handler: udp}, {Listener: l, Handler: tcp}} {
			started, done := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { defer close(done); _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown(); <-done })
		}
		return netip.MustParseAddrPort(c.LocalAddr().String())
	}
	t.Fatal("no port that is free for both")
	return netip.AddrPort{}
}

func none(dns.ResponseWriter, *dns.Msg) {}

// exchanged is what comes back for a question, within a second.
func exchanged(t *testing.T, to netip.AddrPort) (*dns.Msg, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	q := ask("some.name.example.")
	q.SetEdns0(maxUDP, false)
	return exchange(ctx, to, q)
}

// What somebody makes up is no answer: another id, another question, no response,
// no DNS at all. The real one that comes after it is.
func TestAnswersThatAreMadeUp(t *testing.T) {
	var spellings atomic.Pointer[[]string]
	to := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		all := []string{q.Question[0].Name}
		if before := spellings.Load(); before != nil {
			all = append(all, *before...)
		}
		spellings.Store(&all)
		for _, spoil := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Question = nil },
			func(m *dns.Msg) { m.Response = false },
		} {
			m := reply(q.Copy(), 60, "198.51.100.66")
			spoil(m)
			_ = w.WriteMsg(m)
		}
		_, _ = w.Write([]byte("nonsense"))
		_, _ = w.Write([]byte("\x00\x00\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
		_ = w.WriteMsg(reply(q, 60, "203.0.113.1"))
	}, none)
	for range 8 {
		m, err := exchanged(t, to)
		if err != nil || len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "203.0.113.1") || m.Question[0].Name != "some.name.example." {
			t.Fatalf("%v, %v", m, err)
		}
	}
	seen := map[string]bool{}
	for _, s := range *spellings.Load() {
		seen[s] = true
	}
	if len(seen) < 4 {
		t.Errorf("8 questions are spelled in %d ways: %v", len(seen), seen)
	}
}

// A resolver that does not keep the spelling is asked by TCP, where nobody else
// can answer; so is one whose answer is too long for a datagram.
func TestAskedByTCP(t *testing.T) {
	whole := func(w dns.ResponseWriter, q *dns.Msg) {
		m := reply(q, 60, "203.0.113.2")
		m.Question[0].Name = strings.ToLower(m.Question[0].Name)
		_ = w.WriteMsg(m)
	}
	for name, udp := range map[string]dns.HandlerFunc{
		"small letters": whole,
		"truncated": func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
		},
	} {
		if m, err := exchanged(t, upstream(t, udp, whole)); err != nil || len(m.Answer) != 1 || m.Truncated {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// Only made-up answers, or none, or a TCP connection that is cut: an error, in time.
func TestNoAnswer(t *testing.T) {
	cut := func(w dns.ResponseWriter, _ *dns.Msg) { _ = w.Close() }
	truncated := func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Truncated = true
		_ = w.WriteMsg(m)
	}
	flood := func(w dns.ResponseWriter, q *dns.Msg) {
		for range 4 * maxStrays {
			m := reply(q.Copy(), 60, "198.51.100.66")
			m.Id++
			_ = w.WriteMsg(m)
		}
	}
	for name, to := range map[string]netip.AddrPort{
		"silent":       upstream(t, none, none),
		"cut":          upstream(t, truncated, cut),
		"silent later": upstream(t, truncated, none),
		"flood":        upstream(t, flood, none),
		"nobody there": netip.MustParseAddrPort("127.0.0.1:1"),
	} {
		began := time.Now()
		if m, err := exchanged(t, to); err == nil {
			t.Errorf("%s: %v", name, m)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

// A resolver that has never heard of EDNS is asked without.
func TestResolverWithoutEDNS(t *testing.T) {
	to := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			m := new(dns.Msg)
			_ = w.WriteMsg(m.SetRcode(q, dns.RcodeFormatError))
			return
		}
		_ = w.WriteMsg(reply(q, 60, "203.0.113.3"))
	}, none)
	s := at{newTestServer(landWith(to), exchange), "fief0"}
	if m := s.answer(ask("a.example."), asShop); len(m.Answer) != 1 {
		t.Errorf("%v", m)
	}
}
