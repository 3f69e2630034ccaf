package tuntap

import (
	"crypto/sha256"
	"errors"
	"hash"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// load is what is sent in one go, and how often.
type load struct {
	writes  int // datagrams as the program makes them
	size    int // bytes of each
	segment int // into how large ones its kernel cuts them (UDP_SEGMENT); 0: it does not
	rounds  int
}

// datagrams is how many there are on the way in a round.
func (l load) datagrams() int {
	if l.segment == 0 {
		return l.writes
	}
	return l.writes * ((l.size + l.segment - 1) / l.segment)
}

// exchange sends a load to a program far away, which sends each datagram back,
// and compares hashes of what was sent, what came there, and what came back.
func exchange(t *testing.T, from, to *nettest.NS, src, dst netip.AddrPort, l load) {
	t.Helper()
	far := bound(t, to, dst)
	defer far.Close()
	there := make(chan hash.Hash, 1)
	go func() { there <- echo(t, far) }()

	near := bound(t, from, src)
	defer near.Close()
	if l.segment > 0 {
		raw, err := near.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set error
		if err := raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, l.segment)
		}); err != nil || set != nil {
			t.Fatalf("have the kernel cut datagrams: %v, %v", err, set)
		}
	}
	sent, back := sha256.New(), sha256.New()
	random := rand.NewChaCha8([32]byte{2})
	b, answer := make([]byte, l.size), make([]byte, 1<<16)
	for round := range l.rounds {
		for range l.writes {
			_, _ = random.Read(b)
			sent.Write(b)
			if _, err := near.WriteToUDPAddrPort(b, dst); err != nil {
				t.Fatal(err)
			}
		}
		for i := range l.datagrams() {
			if err := near.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, _, err := near.ReadFromUDPAddrPort(answer)
			if err != nil {
				t.Fatalf("round %d: %d of %d datagrams came back: %v", round, i, l.datagrams(), err)
			}
			back.Write(answer[:n])
		}
	}
	far.Close()
	want := string(sent.Sum(nil))
	if got := <-there; string(got.Sum(nil)) != want {
		t.Errorf("%v to %v: what came is not what was sent", src, dst)
	}
	if string(back.Sum(nil)) != want {
		t.Errorf("%v to %v: what came back is not what was sent", src, dst)
	}
}

// echo sends datagrams back until its socket is closed. It returns the hash of
// what it got.
func echo(t *testing.T, conn *net.UDPConn) hash.Hash {
	h, b := sha256.New(), make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err == nil {
			h.Write(b[:n])
			_, err = conn.WriteToUDPAddrPort(b[:n], from)
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
				t.Errorf("echo: %v", err)
			}
			return h
		}
	}
}

// bound is a socket with room for a round.
func bound(t *testing.T, ns *nettest.NS, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	ns.Do(t, func() {
		var err error
		if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			t.Fatal(err)
		}
	})
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	return conn
}
