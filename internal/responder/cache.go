package responder

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/miekg/dns"
)

// Bounds of the cache. Answers count as long as their resolver says, but not for long.
const (
	cacheEntries = 2048
	cacheBytes   = 4096 // of one answer
	cacheTime    = 5 * time.Minute
	negativeTime = time.Minute
	failedTime   = time.Second // a failure's (RFC 9520)
)

// question is what answers are told apart by.
type question struct {
	name       string // in small letters
	qtype      uint16
	do, cd, ad bool // DNSSEC: records wanted, checks not wanted, their outcome wanted
}

type cached struct {
	msg        *dns.Msg
	came, over time.Time
}

// cache keeps resolvers' answers.
type cache struct {
	entries *lru.Cache[question, cached]
	now     func() time.Time
}

func newCache() *cache {
	entries, err := lru.New[question, cached](cacheEntries)
	if err != nil {
		panic(err) // a size below one
	}
	return &cache{entries, time.Now}
}

// get returns a copy of an answer, with what is left of its times.
func (c *cache) get(q question) *dns.Msg {
	e, ok := c.entries.Get(q)
	now := c.now()
	if !ok || !now.Before(e.over) {
		return nil
	}
	m := e.msg.Copy()
	age := uint32(now.Sub(e.came) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			h := rr.Header()
			h.Ttl -= min(h.Ttl, age)
		}
	}
	return m
}

// put keeps an answer as long as it counts.
func (c *cache) put(q question, m *dns.Msg) {
	lives := lifetime(m)
	if lives <= 0 || m.Len() > cacheBytes {
		return
	}
	now := c.now()
	c.entries.Add(q, cached{m.Copy(), now, now.Add(lives)})
}

// lifetime is how long an answer counts.
func lifetime(m *dns.Msg) time.Duration {
	switch {
	case m.Truncated:
		return 0
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return failedTime
	case len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError:
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				return min(negativeTime, seconds(min(soa.Hdr.Ttl, soa.Minttl)))
			}
		}
		return failedTime // nobody says how long (RFC 2308)
	}
	least := cacheTime
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			least = min(least, seconds(rr.Header().Ttl))
		}
	}
	return least
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }
