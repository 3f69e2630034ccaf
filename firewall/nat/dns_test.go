package nat

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// says answers every datagram at an address with a word, until the test's end.
func says(t *testing.T, ns *nettest.NS, addr, word string) {
	t.Helper()
	var c net.PacketConn
	ns.Do(t, func() {
		var err error
		if c, err = net.ListenPacket("udp", addr); err != nil {
			t.Fatal(err)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(word), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

// hears asks an address and returns the word that comes back, if one does.
func hears(t *testing.T, ns *nettest.NS, addr string) string {
	t.Helper()
	var c net.Conn
	ns.Do(t, func() {
		var err error
		if c, err = net.Dial("udp", addr); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// Somebody has port 53 of all addresses: the network's own vassals get their names
// all the same, and nobody else anything by it.
func TestNamesAtAnotherPort(t *testing.T) {
	t.Parallel()
	for _, masquerade := range []string{Auto, ""} {
		s := newSite(t)
		s.host.Run(t, "iptables", "-A", "INPUT", "-p", "icmp", "-j", "ACCEPT") // somebody's
		says(t, s.host, ":53", "somebody")
		for _, gate := range []string{gate4, gate6} {
			says(t, s.host, netip.AddrPortFrom(netip.MustParseAddr(gate), 10053).String(), "names")
		}
		if masquerade != "" { // then the port is opened, too
			s.host.Run(t, "iptables", "-P", "INPUT", "DROP")
		}
		h := newHost(t, s.host, "test", t.TempDir())
		n := network()
		n.Masquerade, n.NamesAt, n.Judged = masquerade, 10053, true
		apply(t, s.host, h, n)
		for _, gate := range []string{gate4, gate6} {
			if got := hears(t, s.pool, net.JoinHostPort(gate, "53")); got != "names" {
				t.Errorf("the pool hears %q from %s", got, gate)
			}
		}
		if masquerade == "" {
			if got := hears(t, s.inet, net.JoinHostPort(host4, "53")); got != "somebody" {
				t.Errorf("others hear %q", got)
			}
			if now := rules(t, s.host); strings.Contains(now, "fiefdom-test-fwd") || strings.Contains(now, "fiefdom-test-in") {
				t.Errorf("more than asked for:\n%s", now)
			}
		}
		n.NamesAt = 53
		apply(t, s.host, h, n)
		if got := hears(t, s.pool, net.JoinHostPort(gate6, "53")); got != "somebody" {
			t.Errorf("without it the pool hears %q", got)
		}
		remove(t, s.host, h)
		if left := rules(t, s.host); strings.Contains(left, "fiefdom") {
			t.Errorf("left behind:\n%s", left)
		}
	}
}
