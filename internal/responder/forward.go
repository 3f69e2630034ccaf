package responder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// How long resolvers are waited for. All of it is less than the 5 s after which a
// C library asks again.
const (
	forwardTime  = 4500 * time.Millisecond
	resolverTime = 1500 * time.Millisecond // for one that is asked first
	sulkTime     = 15 * time.Second        // who did not answer is asked last for so long
)

// forwarder asks the host's resolvers.
type forwarder struct {
	resolvers atomic.Pointer[[]*resolver]
	cache     *cache
	flights   singleflight.Group // who asks the same waits for the same answer
	exchange  func(ctx context.Context, to netip.AddrPort, m *dns.Msg) (*dns.Msg, error)
}

// resolver is one of the host's.
type resolver struct {
	addr   netip.AddrPort
	mu     sync.Mutex
	failed time.Time // when it last did not answer
}

func (r *resolver) sulks() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.failed) < sulkTime
}

func (r *resolver) note(answered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = time.Now(); answered {
		r.failed = time.Time{}
	}
}

// use sets the resolvers. One that is ourselves would be asked for ever.
func (f *forwarder) use(addrs []netip.AddrPort, own map[netip.Addr]bool) {
	var now []*resolver
	before := f.resolvers.Load()
	for _, a := range addrs {
		if own[a.Addr()] {
			continue
		}
		r := &resolver{addr: a}
		if before != nil {
			if i := slices.IndexFunc(*before, func(r *resolver) bool { return r.addr == a }); i >= 0 {
				r = (*before)[i]
			}
		}
		now = append(now, r)
	}
	if before == nil || !slices.EqualFunc(*before, now, func(a, b *resolver) bool { return a.addr == b.addr }) {
		f.cache.entries.Purge() // others may know other names
	}
	f.resolvers.Store(&now)
}

// answer asks the cache, then the resolvers.
func (f *forwarder) answer(ctx context.Context, q *dns.Msg) *dns.Msg {
	key := question{name: strings.ToLower(q.Question[0].Name), qtype: q.Question[0].Qtype, cd: q.CheckingDisabled, ad: q.AuthenticatedData}
	if opt := q.IsEdns0(); opt != nil {
		key.do = opt.Do()
	}
	m := f.cache.get(key)
	if m == nil {
		flight := f.flights.DoChan(fmt.Sprint(key), func() (any, error) {
			// Its own time: the first who asks may give up before the others.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forwardTime)
			defer cancel()
			m, err := f.askAll(ctx, key)
			if err != nil {
				m = &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeServerFailure}}
			}
			f.cache.put(key, m)
			return m, nil
		})
		select {
		case r := <-flight:
			m = r.Val.(*dns.Msg).Copy()
		case <-ctx.Done():
			return fail(q, dns.RcodeServerFailure)
		}
	}
	return answerTo(q, m)
}

// answerTo makes a resolver's answer the one to a question: its id, its flags, and
// its spelling of the name.
func answerTo(q, m *dns.Msg) *dns.Msg {
	reply := fail(q, m.Rcode)
	reply.AuthenticatedData = m.AuthenticatedData
	reply.Answer, reply.Ns, reply.Extra = m.Answer, m.Ns, m.Extra
	for _, rr := range reply.Answer {
		if h := rr.Header(); strings.EqualFold(h.Name, q.Question[0].Name) {
			h.Name = q.Question[0].Name
		}
	}
	return reply
}

// askAll asks one resolver after the other, twice at most, until one knows.
func (f *forwarder) askAll(ctx context.Context, key question) (last *dns.Msg, err error) {
	all := slices.Clone(*f.resolvers.Load())
	if len(all) == 0 {
		return nil, errors.New("the host has no resolver")
	}
	sulks := make(map[*resolver]int, len(all))
	for _, r := range all {
		if r.sulks() {
			sulks[r] = 1
		}
	}
	slices.SortStableFunc(all, func(a, b *resolver) int { return cmp.Compare(sulks[a], sulks[b]) })
	for range 2 {
		for _, r := range all {
			m, aerr := f.askOne(ctx, r, key)
			switch {
			case ctx.Err() != nil:
				return last, cmp.Or(aerr, ctx.Err())
			case aerr != nil:
				err = aerr
			case m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError:
				return m, nil
			default:
				last = m // another may know better
			}
		}
		if last != nil {
			return last, nil
		}
	}
	return nil, err
}

func (f *forwarder) askOne(ctx context.Context, r *resolver, key question) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, resolverTime)
	defer cancel()
	m := new(dns.Msg)
	m.SetQuestion(key.name, key.qtype)
	m.CheckingDisabled, m.AuthenticatedData = key.cd, key.ad
	m.SetEdns0(maxUDP, key.do)
	answer, err := f.exchange(ctx, r.addr, m)
	r.note(err == nil)
	if err == nil && (answer.Rcode == dns.RcodeFormatError || answer.Rcode == dns.RcodeNotImplemented) && answer.IsEdns0() == nil {
		m.Extra = nil // it does not know EDNS
		answer, err = f.exchange(ctx, r.addr, m)
	}
	if err != nil {
		return nil, err
	}
	// What is between it and us is no matter of the asker's.
	answer.Extra = slices.DeleteFunc(answer.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	answer.Rcode &= 0xf
	return answer, nil
}
