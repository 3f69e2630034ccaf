package responder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

type exchanger = func(context.Context, netip.AddrPort, *dns.Msg) (*dns.Msg, error)

// newTestServer is a server with a feed in force, whose resolvers answer by ask.
func newTestServer(f *Feed, ask exchanger) *server {
	if ask == nil {
		ask = func(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
			m := new(dns.Msg)
			m.SetReply(q)
			return m, nil
		}
	}
	s := &server{askers: newAskers(), forward: &forwarder{cache: newCache(), exchange: ask}}
	s.use(f)
	return s
}

var resolvers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}

// landWith is the land of the other tests with resolvers.
func landWith(resolvers ...netip.AddrPort) *Feed {
	f := land
	f.Resolvers = resolvers
	return &f
}

// reply is an answer with one address.
func reply(q *dns.Msg, ttl uint32, addr string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: net.ParseIP(addr)}}
	return m
}

func ask(name string) *dns.Msg {
	q := new(dns.Msg)
	return q.SetQuestion(name, dns.TypeA)
}

// A resolver that is silent costs its time once; then the other is asked first.
func TestSecondResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []netip.AddrPort
		s := at{newTestServer(landWith(resolvers...), func(ctx context.Context, to netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
			asked = append(asked, to)
			if to == resolvers[0] {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return reply(q, 60, "203.0.113.1"), nil
		}), "fief0"}
		began := time.Now()
		if m := s.answer(ask("a.example."), asShop); len(m.Answer) != 1 || time.Since(began) != resolverTime {
			t.Errorf("after %s: %v", time.Since(began), m)
		}
		began = time.Now()
		if m := s.answer(ask("b.example."), asShop); len(m.Answer) != 1 || time.Since(began) != 0 {
			t.Errorf("after %s: %v", time.Since(began), m)
		}
		time.Sleep(sulkTime)
		s.answer(ask("c.example."), asShop)
		if want := []netip.AddrPort{resolvers[0], resolvers[1], resolvers[1], resolvers[0], resolvers[1]}; fmt.Sprint(asked) != fmt.Sprint(want) {
			t.Errorf("asked %v, want %v", asked, want)
		}
	})
}

// What goes wrong with resolvers is an answer, and in time for a C library.
func TestResolversThatFail(t *testing.T) {
	refuse := func(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
		m := new(dns.Msg)
		return m.SetRcode(q, dns.RcodeRefused), nil
	}
	silent := func(ctx context.Context, _ netip.AddrPort, _ *dns.Msg) (*dns.Msg, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, c := range map[string]struct {
		feed *Feed
		ask  exchanger
		want int
	}{
		"none":          {landWith(), nil, dns.RcodeServerFailure},
		"only oneself":  {landWith(netip.MustParseAddrPort("10.9.0.1:53"), netip.MustParseAddrPort("[fd00:9::1]:53")), nil, dns.RcodeServerFailure},
		"all refuse":    {landWith(resolvers...), refuse, dns.RcodeRefused},
		"all are quiet": {landWith(resolvers...), silent, dns.RcodeServerFailure},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := at{newTestServer(c.feed, c.ask), "fief0"}
				began := time.Now()
				m := s.answer(ask("a.example."), asShop)
				if m.Rcode != c.want || time.Since(began) > forwardTime {
					t.Errorf("%s after %s", dns.RcodeToString[m.Rcode], time.Since(began))
				}
				time.Sleep(forwardTime) // the flight lands
			})
		})
	}
}

// Answers are kept as long as they count, and their times run on.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		s := at{newTestServer(landWith(resolvers...), func(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
			name := strings.ToLower(q.Question[0].Name)
			asked[name]++
			m := reply(q, 100, "203.0.113.1")
			switch name {
			case "long.example.":
				m.Answer[0].Header().Ttl = 1 << 31
			case "no.example.", "soon.example.":
				m.Answer, m.Rcode = nil, dns.RcodeNameError
				soa := soa().(*dns.SOA)
				soa.Hdr.Ttl, soa.Minttl = 30, 10
				if name == "no.example." {
					soa.Minttl = 3600
				}
				m.Ns = []dns.RR{soa}
			case "zero.example.":
				m.Answer[0].Header().Ttl = 0
			}
			return m, nil
		}), "fief0"}
		for _, c := range []struct {
			name  string
			lives time.Duration
		}{
			{"plain.example.", 100 * time.Second},
			{"long.example.", cacheTime},
			{"no.example.", 30 * time.Second},
			{"soon.example.", 10 * time.Second},
			{"zero.example.", 0},
		} {
			s.answer(ask(c.name), asShop)
			time.Sleep(c.lives - min(c.lives, time.Second))
			m := s.answer(ask(strings.ToUpper(c.name)), asBlog0)
			if want := 1; c.lives > 0 && asked[c.name] != want {
				t.Errorf("%s was asked for %d times within its time", c.name, asked[c.name])
			}
			if len(m.Answer) > 0 && (m.Answer[0].Header().Name != strings.ToUpper(c.name) || c.lives == 100*time.Second && m.Answer[0].Header().Ttl != 1) {
				t.Errorf("%s: %v", c.name, m.Answer[0])
			}
			time.Sleep(2 * time.Second)
			s.answer(ask(c.name), asShop)
			if asked[c.name] < 2 {
				t.Errorf("%s counts for ever", c.name)
			}
		}
		before := asked["plain.example."]
		s.use(landWith(resolvers[1]))
		s.answer(ask("plain.example."), asShop)
		if asked["plain.example."] != before+1 {
			t.Error("what other resolvers said still counts")
		}
	})
}

// Who asks the same at the same time waits for one answer.
func TestOneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		s := at{newTestServer(landWith(resolvers...), func(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return reply(q, 60, "203.0.113.1"), nil
		}), "fief0"}
		var wg sync.WaitGroup
		var good atomic.Int32
		for i := range 40 {
			wg.Go(func() {
				if q := ask("a.example."); i%2 == 0 {
					if m := s.answer(q, asShop); m.Id == q.Id && len(m.Answer) == 1 {
						good.Add(1)
					}
				} else if m := s.answer(q, asBlog0); m.Id == q.Id && len(m.Answer) == 1 {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		if asked.Load() != 1 || good.Load() != 40 {
			t.Errorf("%d questions for %d answers", asked.Load(), good.Load())
		}
	})
}

// One asker waits for so many answers, and no more; the others for theirs.
func TestBudgetOfWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := at{newTestServer(landWith(resolvers...), func(ctx context.Context, _ netip.AddrPort, _ *dns.Msg) (*dns.Msg, error) {
			<-ctx.Done()
			return nil, errors.New("silent")
		}), "fief0"}
		var refused atomic.Int32
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				began := time.Now()
				s.answer(ask(fmt.Sprintf("a%d.example.", i)), asShop)
				if time.Since(began) == 0 {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if got := refused.Load(); got != 200-askWaits {
			t.Errorf("%d were refused at once, want %d", got, 200-askWaits)
		}
		if _, ok := s.askers.wait(asBlog0); !ok {
			t.Error("another asker has no place")
		}
		wg.Wait()
		time.Sleep(forwardTime)
		if got := s.askers.waits.Load(); got != 1 {
			t.Errorf("%d places are taken at the end", got-1)
		}
	})
}

// However many askers wait for as much as they may, another one has his share.
func TestWaitersLeaveOthersTheirs(t *testing.T) {
	s := newAskers()
	who := func(n int) Asker {
		return Asker{"fief0", netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)})}
	}
	var all []func()
	places := func(n int) (got int) {
		for {
			release, ok := s.wait(who(n))
			if !ok {
				return got
			}
			got++
			all = append(all, release)
		}
	}
	for n := range allWaits / askWaits {
		if got := places(n); got != askWaits {
			t.Errorf("asker %d waits for %d answers, want %d", n, got, askWaits)
		}
	}
	for n := 100; n < 100+(maxWaits-allWaits)/askShare; n++ {
		if got := places(n); got != askShare {
			t.Fatalf("asker %d waits for %d answers, want %d", n, got, askShare)
		}
	}
	if got := places(1000); got != 0 {
		t.Errorf("beyond the bound of all somebody waits for %d", got)
	}
	for _, release := range all {
		release()
	}
	if s.waits.Load() != 0 || places(1000) != askWaits {
		t.Errorf("%d wait after all have gone", s.waits.Load())
	}
}
