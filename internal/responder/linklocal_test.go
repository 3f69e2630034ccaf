package responder

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/internal/nettest"
)

// A router that tells of itself by RA is often the only resolver of a host, at its
// link-local address.
func TestLinkLocalResolver(t *testing.T) {
	r := newRig(t, landWith(), "10.9.0.7")
	r.jail.Run(t, "ip", "-6", "addr", "add", "fe80::53/64", "dev", "eth0", "nodad")
	r.jail.Do(t, func() {
		c, err := net.ListenPacket("udp6", "[::]:53")
		if err != nil {
			t.Fatal(err)
		}
		s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(reply(q, 60, "192.0.2.7")) })}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		t.Cleanup(func() { c.Close(); <-done })
	})
	r.Change(func(f *Feed) { f.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("[fe80::53%fief0]:53")} })
	nettest.Eventually(t, 20*time.Second, "an answer by it", func() bool {
		m, err := asks(r.dial(t, "udp", "10.9.0.7"), ask("some.example."), 5*time.Second)
		return err == nil && len(m.Answer) == 1
	})
}
