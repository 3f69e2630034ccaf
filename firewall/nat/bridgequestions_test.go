package nat

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// counted is a socket of the host's that takes what vassals ask.
type counted struct {
	*net.UDPConn
	t *testing.T
}

func listenAt(t *testing.T, host *nettest.NS, at string) *counted {
	t.Helper()
	c := &counted{t: t}
	host.Do(t, func() {
		var err error
		if c.UDPConn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// has counts, by its first byte, what has come; nothing more is on its way.
func (c *counted) has() (from map[byte]int) {
	c.t.Helper()
	from = map[byte]int{}
	b := make([]byte, 1<<16)
	for {
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			c.t.Fatal(err)
		}
		n, err := c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return from
		}
		if err != nil || n == 0 {
			c.t.Fatal(n, err)
		}
		from[b[0]]++
	}
}

// sendsTo sends so many datagrams of a question's length, many at once where uncut
// says so, and says how long that took.
func sendsTo(t *testing.T, ns *nettest.NS, at string, name byte, count, uncut int) time.Duration {
	t.Helper()
	const size = 40
	var c net.Conn
	ns.Do(t, func() {
		var err error
		if c, err = net.Dial("udp", at); err != nil {
			t.Fatal(err)
		}
	})
	defer c.Close()
	if uncut > 1 {
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err == nil {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
		}
		if err != nil {
			nettest.NotHere(t, "the kernel cuts no datagrams (UDP_SEGMENT): %v", err)
		}
	}
	began := time.Now()
	b := []byte(strings.Repeat(string(rune(name)), size*uncut))
	for range count / uncut {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(began)
}

// A vassal that floods the host's names gets through what one may ask; what others
// ask comes, and what it sends elsewhere. // T52
func TestBridgeBoundsQuestions(t *testing.T) {
	t.Parallel()
	named, led, open := bridgeOf, bridgeOf, bridgeOf
	named.NamesAt, led.NamesAt, open.NamesAt, open.Isolate = 53, 10053, 53, false
	openLed := open
	openLed.NamesAt = 10053
	const flood, calm = 20_000, 100
	for _, c := range []struct {
		name         string
		bridge       Bridge
		at, asked    string
		uncut, least int
		most         func(time.Duration) int
	}{
		{"IPv4", named, "10.100.0.1:53", "10.100.0.1:53", 1, 1000, atRate(2000)},
		{"IPv6", named, "[fd10::1]:53", "[fd10::1]:53", 1, 1000, atRate(2000)},
		{"led to another port", led, "10.100.0.1:10053", "10.100.0.1:53", 1, 1000, atRate(2000)},
		{"that port itself", openLed, "10.100.0.1:10053", "10.100.0.1:10053", 1, 1000, atRate(2000)},
		{"not isolated", open, "10.100.0.1:53", "10.100.0.1:53", 1, 1000, atRate(2000)},
		{"not cut yet", named, "10.100.0.1:53", "10.100.0.1:53", 50, 1000, atRate(256 << 10 / 40)},
		{"another port", open, "10.100.0.1:54", "10.100.0.1:54", 1, flood, func(time.Duration) int { return flood }},
		{"no names", bridgeOf, "10.100.0.1:53", "10.100.0.1:53", 1, flood, func(time.Duration) int { return flood }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newBridged(t, c.bridge)
			s := listenAt(t, w.host, c.at)
			took := sendsTo(t, w.a, c.asked, 'a', flood, c.uncut)
			sendsTo(t, w.b, c.asked, 'b', calm, 1)
			got := s.has()
			t.Logf("%d of %d in %s", got['a'], flood, took)
			if got['a'] < c.least || got['a'] > c.most(took) || got['b'] != calm {
				t.Errorf("of a flood of %d within %s came %d, of another's %d questions %d", flood, took, got['a'], calm, got['b'])
			}
		})
	}
}

// atRate is so many a second after as many at once, and some more for the clock.
func atRate(rate int) func(time.Duration) int {
	return func(d time.Duration) int { return rate + int(float64(rate)*d.Seconds()) + rate/10 }
}
