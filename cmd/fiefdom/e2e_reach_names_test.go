package main

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"fiefdom/internal/netns"
)

// What is answered to who asks for a name, beside refused and silent.
const (
	known   = "known"
	unknown = "unknown"
)

// nameRow is what is answered about a vassal, in the order of the columns: at the
// router, or the bridge's address, of who asks (of the host and of machines: of the
// vassal), or at the host.
type nameRow struct {
	of, name string
	at       spot
	want     string
}

var nameRows = []nameRow{
	{"blog", "blog", atRouter, "refused refused known known unknown unknown unknown unknown known"},
	{"blog", "blog.fief0", atRouter, "refused refused known known unknown unknown unknown unknown known"},
	{"blog", "blog.fiefdom.internal", atRouter, "refused refused known known unknown unknown unknown unknown known"},
	{"blog", reverse, atRouter, "refused refused known known unknown unknown unknown unknown known"},
	{"blog", "blog.fiefdom.internal", atHost, "refused refused refused silent silent silent refused silent silent"},
	{"wiki", "wiki", atRouter, "refused refused known known unknown - unknown unknown known"},
	{"wiki", "wiki.br0", atRouter, "refused refused known known unknown - unknown unknown known"},
	{"wiki", "wiki.fiefdom.internal", atRouter, "refused refused known known unknown - unknown unknown known"},
	{"wiki", reverse, atRouter, "refused refused known known unknown - unknown unknown known"},
	{"wiki", "wiki.fiefdom.internal", atHost, "refused refused refused silent silent - refused refused silent"},
}

// reverse stands for the name that the vassal's address is looked up by.
const reverse = "its address"

// routerOf is the vassal whose router a column asks about another one: its own, where
// it has one.
func routerOf(c column, of string) string {
	switch {
	case c == fromOther && of == "wiki":
		return "blog"
	case c == fromOther, c == fromLetIn:
		return "far"
	case c == fromOpen:
		return "shop"
	case c == fromBridge && of == "wiki":
		return "over"
	case c == fromBridge:
		return "wiki"
	}
	return of
}

// compareNames asks for names from everywhere.
func (r *reachRealm) compareNames(t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	for _, row := range nameRows {
		want := strings.Fields(row.want)
		if len(want) != int(columns) {
			t.Fatalf("%v has %d columns", row, len(want))
		}
		for c := range columns {
			if want[c] == noCase {
				continue
			}
			from := r.asker(c, row.of)
			for _, proto := range []string{"tcp", "udp"} {
				for family := range 2 {
					q := nameQuestion{of: row.of, proto: proto, server: hostAddrs[family], address: r.where(row.of, atApp, family)}
					if row.at == atRouter {
						q.server = routers[routerOf(c, row.of)][family]
					}
					wg.Go(func() {
						got := askUntil(want[c], func() (got string) {
							_ = netns.Do(from, func() error { got = q.ask(row.name); return nil })
							return got
						})
						if got != want[c] {
							t.Errorf("%s of %s asked at %s (%s, %s) from %s: %s, want %s", row.name, row.of, row.at, q.server, proto, columnNames[c], got, want[c])
						}
					})
				}
			}
		}
	}
	wg.Wait()
}

// nameQuestion is one for a vassal's name or address, to a server.
type nameQuestion struct {
	of      string
	proto   string
	server  netip.Addr
	address netip.Addr // of the vassal, of the server's family
}

// ask asks once, in the network namespace of the thread, and says what came of it.
func (q *nameQuestion) ask(name string) string {
	m := new(dns.Msg)
	qtype, answer := dns.TypeA, q.address.String()
	if q.address.Is6() {
		qtype = dns.TypeAAAA
	}
	if name == reverse {
		name, _ = dns.ReverseAddr(answer)
		qtype, answer = dns.TypePTR, q.of+".fiefdom.internal."
	}
	m.SetQuestion(dns.Fqdn(name), qtype)
	client := dns.Client{Net: q.proto, Timeout: silence}
	got, _, err := client.Exchange(m, netip.AddrPortFrom(q.server, 53).String())
	switch {
	case err != nil:
		return whatFailed(err)
	case got.Rcode == dns.RcodeNameError:
		return unknown
	case slices.ContainsFunc(got.Answer, func(rr dns.RR) bool { return strings.HasSuffix(rr.String(), "\t"+answer) }):
		return known
	}
	return dns.RcodeToString[got.Rcode] + " " + got.String()
}
