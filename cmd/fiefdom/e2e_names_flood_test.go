package main

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// asksAt connects a vassal to where names are answered.
func (r *realm) asksAt(s emperor.Status, server string) *dns.Conn {
	r.t.Helper()
	var c net.Conn
	if err := netns.Do(r.jailOf(s), func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(server, "53"))
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &dns.Conn{Conn: c, UDPSize: dns.MinMsgSize}
}

// asksOften asks one question after the other, each until it is answered, and says how
// long they took, the shortest first.
func asksOften(t *testing.T, c *dns.Conn, name string, count int) (took []time.Duration) {
	t.Helper()
	for i := range count {
		q, began := query(name, dns.TypeA), time.Now()
		for answered := false; !answered && time.Since(began) < patience; {
			if err := c.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteMsg(q); err != nil {
				t.Fatal(err)
			}
			for m, err := c.ReadMsg(); err == nil && !answered; {
				if answered = m.Id == q.Id; !answered { // the late answer to one before
					m, err = c.ReadMsg()
				}
			}
		}
		took = append(took, time.Since(began))
		if took[i] >= patience {
			t.Fatalf("question %d is not answered", i)
		}
		time.Sleep(20 * time.Millisecond) // the pace of a calm asker
	}
	slices.Sort(took)
	return took
}

// overLimit is how many packets of a vassal's questions the tables of a bridge have dropped.
func (r *realm) overLimit(t *testing.T, vassal string) (sum uint64) {
	t.Helper()
	list := r.Run(t, "nft", "list", "table", "bridge", "fiefdom-emperor")
	for chain := range strings.SplitSeq(list, "\tchain ") {
		if !strings.Contains(chain, " saddr "+addressOf(t, r.ps(vassal), 32).String()+" ") {
			continue
		}
		for _, m := range regexp.MustCompile(`limit rate over .* counter packets (\d+)`).FindAllStringSubmatch(chain, -1) {
			n, err := strconv.ParseUint(m[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// One vassal asks 50,000 questions a second. Others are answered as ever, and the
// kernel or the router counts what it keeps away. // T52
func TestNamesInAFlood(t *testing.T) {
	t.Parallel()
	const bridged = "[uwsgi]\nnetwork = bridge:br0\ncommand = AGENT\n"
	for _, c := range []struct {
		name, emperor, blog, shop, server string
		taken                             bool // port 53, by somebody else
	}{
		{"a router's network", nativeNetwork, agentIni, agentIni, "10.9.0.1", false},
		{"port 53 taken", nativeNetwork, agentIni, agentIni, "10.9.0.1", true},
		{"a bridge", noNetwork, bridgedVassal, bridged, "10.100.0.1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := layRealm(t, nettest.NewWorld(t), "emperor", c.emperor)
			if c.taken {
				resolver(t, r.Host, netip.IPv4Unspecified(), func(dns.ResponseWriter, *dns.Msg) {})
			}
			r.drop("blog", c.blog)
			r.drop("shop", c.shop)
			r.start()
			blog, shop := r.reach("blog"), r.reach("shop")
			r.answersNames(shop, []string{c.server}, "blog.fiefdom.internal", dns.TypeA, addressOf(t, blog, 32).String())
			kept := func(vassal string) uint64 {
				if c.emperor == nativeNetwork {
					return r.ps(vassal).Drops["rate"]
				}
				return r.overLimit(t, vassal)
			}
			calm, flood := r.asksAt(shop, c.server), r.asksAt(blog, c.server)
			before := asksOften(t, calm, "blog.fiefdom.internal", 100)
			over, sent := make(chan struct{}), 0
			var wg sync.WaitGroup
			wg.Go(func() { sent = floods(t, flood, over) })
			nettest.Eventually(t, patience, "questions are kept away", func() bool { return kept("blog") > 0 })
			took := asksOften(t, calm, "blog.fiefdom.internal", 100)
			close(over)
			wg.Wait()
			away := kept("blog")
			t.Logf("of %d questions %d are kept away; of others' the p99 is %s, without a flood %s", sent, away, took[98], before[98])
			if took[98] > before[98]+300*time.Millisecond && !nettest.Raced() {
				t.Errorf("of 100 questions 99 are answered within %s; without a flood within %s", took[98], before[98])
			}
			if got := kept("shop"); got > 0 {
				t.Errorf("of shop's %d are kept away", got)
			}
			r.stop(syscall.SIGTERM)
		})
	}
}

// floods asks 50,000 questions a second, if the machine lets it.
func floods(t *testing.T, c *dns.Conn, over <-chan struct{}) (n int) {
	q, err := query("blog.fiefdom.internal", dns.TypeA).Pack()
	if err != nil {
		t.Error(err)
		return 0
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-tick.C:
		case <-over:
			return n
		}
		for due, most := int(time.Since(began).Seconds()*50_000), n+200; n < min(due, most); n++ {
			_, _ = c.Conn.Write(q) // the queue may be full
		}
	}
}
