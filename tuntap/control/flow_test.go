package control

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
	"fiefdom/tuntap/tuntest"
)

// flow is a stream of TCP and datagrams of UDP from one jail to another, both
// numbered. None may be lost.
type flow struct {
	t       *testing.T
	stop    chan struct{}
	sender  sync.WaitGroup
	readers sync.WaitGroup
	sent    atomic.Uint64 // by each
	got     [2]atomic.Uint64
}

func (d *dynasty) flow(t *testing.T) *flow {
	t.Helper()
	f := &flow{t: t, stop: make(chan struct{})}
	var l net.Listener
	var u net.PacketConn
	var c, v net.Conn
	var err error
	address := netip.AddrPortFrom(vassalAddr(1), uint16(7000+d.flows)).String()
	d.flows++
	d.jails[1].Do(t, func() {
		var lerr, uerr error
		l, lerr = net.Listen("tcp4", address)
		u, uerr = net.ListenPacket("udp4", address)
		err = errors.Join(lerr, uerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.jails[0].Do(t, func() {
		var cerr, verr error
		c, cerr = net.DialTimeout("tcp4", address, 20*time.Second)
		v, verr = net.Dial("udp4", address)
		err = errors.Join(cerr, verr)
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// On a busy machine the reader may not run for long; that would be its loss.
	raw, err := u.(*net.UDPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	f.readers.Go(func() { f.receive(0, s) })
	f.readers.Go(func() { f.receive(1, u.(net.Conn)) })
	f.sender.Go(func() { f.send(c, v) })
	t.Cleanup(func() {
		for _, closer := range []io.Closer{c, v, s, u, l} {
			closer.Close()
		}
		f.sender.Wait()
		f.readers.Wait()
	})
	return f
}

func (f *flow) send(conns ...net.Conn) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		b := binary.BigEndian.AppendUint64(nil, n)
		for _, c := range conns {
			if _, err := c.Write(b); err != nil {
				return // the test ended
			}
		}
		f.sent.Store(n)
		select {
		case <-tick.C:
		case <-f.stop:
			return
		}
	}
}

func (f *flow) receive(i int, c net.Conn) {
	var b [8]byte
	for want := uint64(1); ; want++ {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		if n := binary.BigEndian.Uint64(b[:]); n != want {
			f.t.Errorf("flow %d: %d came, want %d", i, n, want)
			return
		}
		f.got[i].Store(want)
	}
}

// goesOn waits until more has come by both ways.
func (f *flow) goesOn() {
	f.t.Helper()
	mark := f.sent.Load() + 5
	nettest.Eventually(f.t, 20*time.Second, "more of the flow", func() bool {
		return f.got[0].Load() >= mark && f.got[1].Load() >= mark
	})
}

// end stops the flow and waits until everything has come.
func (f *flow) end() {
	f.t.Helper()
	close(f.stop)
	f.sender.Wait()
	sent := f.sent.Load()
	nettest.Eventually(f.t, 20*time.Second, "the rest of the flow", func() bool {
		return f.got[0].Load() == sent && f.got[1].Load() == sent
	})
}

// foreigner is a device that speaks uWSGI's frames, as one of a real uWSGI does.
type foreigner struct {
	t    *testing.T
	conn *net.UnixConn
	addr netip.Addr
}

func (d *dynasty) foreigner(t *testing.T, addr string) *foreigner {
	t.Helper()
	conn, err := tuntap.Dial(d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &foreigner{t, conn, netip.MustParseAddr(addr)}
}

// send sends a packet in a frame.
func (f *foreigner) send(packet []byte) {
	f.t.Helper()
	frame := append([]byte{0, byte(len(packet)), byte(len(packet) >> 8), 0}, packet...)
	if err := f.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.conn.Write(frame); err != nil {
		f.t.Fatal(err)
	}
}

// ping sends the host an echo and waits for the answer.
func (f *foreigner) ping() {
	f.t.Helper()
	echo := tuntest.Echo(f.addr, pool.Addr(), 5, 1)
	f.send(echo)
	answer := make([]byte, 4+len(echo))
	if _, err := io.ReadFull(f.conn, answer); err != nil {
		f.t.Fatal(err)
	}
	if src, _ := netip.AddrFromSlice(answer[4+12 : 4+16]); src != pool.Addr() {
		f.t.Fatalf("% x", answer)
	}
}
