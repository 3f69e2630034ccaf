package tuntap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// bridged is a running bridge between a device and a router in memory.
type bridged struct {
	t     testing.TB
	jail  *os.File // the far end of the device: a packet a read or write
	calls *os.File // a byte runs one of what is to run on the bridge's goroutine
	todo  chan func(*Bridge)
	ended chan error
	said  chan Announcement
	run   chan error
}

func newBridged(t testing.TB, known ...Announcement) *bridged {
	t.Helper()
	nettest.NoLeaks(t)
	device, jail := pair(t, unix.SOCK_SEQPACKET)
	watched, calls := pair(t, unix.SOCK_STREAM)
	w := &bridged{
		t: t, jail: jail, calls: calls, todo: make(chan func(*Bridge), 16),
		ended: make(chan error, 64), said: make(chan Announcement, 64), run: make(chan error, 1),
	}
	dev, err := NewDevice("eth0", device)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBridge(dev, known)
	if err != nil {
		t.Fatal(err)
	}
	b.Ended = func(err error) { w.ended <- err }
	b.Announced = func(a Announcement) { w.said <- a }
	fd, err := takeFile(watched)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Watch(fd, func() error {
		var one [1]byte
		if n, err := unix.Read(fd, one[:]); n == 0 || err != nil {
			return io.EOF
		}
		(<-w.todo)(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	go func() { w.run <- b.Run() }()
	t.Cleanup(func() {
		jail.Close() // the end of the device ends the bridge
		if err := <-w.run; !errors.Is(err, ErrDeviceGone) {
			t.Errorf("the bridge ended with %v", err)
		}
		if err := errors.Join(b.Close(), unix.Close(fd)); err != nil {
			t.Error(err)
		}
		calls.Close()
	})
	return w
}

// pair is a socket pair.
func pair(t testing.TB, kind int) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
}

// do runs f on the bridge's goroutine.
func (w *bridged) do(f func(*Bridge)) {
	w.t.Helper()
	done := make(chan struct{})
	w.todo <- func(b *Bridge) { f(b); close(done) }
	if _, err := w.calls.Write([]byte{1}); err != nil {
		w.t.Fatal(err)
	}
	<-done
}

// connect gives the bridge a connection and returns the router's end.
func (w *bridged) connect() *os.File {
	w.t.Helper()
	near, router := pair(w.t, unix.SOCK_STREAM)
	fd, err := takeFile(near)
	if err != nil {
		w.t.Fatal(err)
	}
	w.do(func(b *Bridge) {
		if err := b.Connect(fd); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(func() { router.Close() })
	return router
}

func deadline(t testing.TB, f *os.File) {
	t.Helper()
	if err := f.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

// frame reads one frame from the router's end.
func (w *bridged) frame(router *os.File) []byte {
	w.t.Helper()
	deadline(w.t, router)
	var head [frameHeader]byte
	if _, err := io.ReadFull(router, head[:]); err != nil {
		w.t.Fatal(err)
	}
	if head[0] != 0 || head[3] != kindData {
		w.t.Fatalf("header % x", head)
	}
	p := make([]byte, binary.LittleEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(router, p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// packet reads one packet from the jail's end of the device.
func (w *bridged) packet() []byte {
	w.t.Helper()
	deadline(w.t, w.jail)
	p := make([]byte, 1<<16)
	n, err := w.jail.Read(p)
	if err != nil {
		w.t.Fatal(err)
	}
	return p[:n]
}

func (w *bridged) out(p []byte) {
	w.t.Helper()
	deadline(w.t, w.jail)
	if _, err := w.jail.Write(p); err != nil {
		w.t.Fatal(err)
	}
}

// datagram is a datagram of the given length with a number and a pattern.
func datagram(i, length int) []byte {
	payload := make([]byte, length)
	for k := range payload {
		payload[k] = byte(i + k)
	}
	binary.BigEndian.PutUint32(payload, uint32(i))
	return tuntest.UDP(netip.AddrPortFrom(blog, 1000), netip.AddrPortFrom(gateway, 2000), payload)
}

func dataFrame(p []byte) []byte {
	b := make([]byte, frameHeader, frameHeader+len(p))
	putHeader(b, kindData, len(p))
	return append(b, p...)
}

func TestBridgeCopiesBothWays(t *testing.T) {
	w := newBridged(t)
	router := w.connect()
	for i := range 100 { // more than a batch
		w.out(datagram(i, 4+i))
	}
	for i := range 100 {
		if got := w.frame(router); !bytes.Equal(got, datagram(i, 4+i)) {
			t.Fatalf("packet %d: % x", i, got)
		}
	}
	var stream []byte
	for i := range 100 {
		stream = append(stream, dataFrame(datagram(i, 4+i))...)
	}
	deadline(t, router)
	go func() { _, _ = router.Write(stream) }()
	for i := range 100 {
		if got := w.packet(); !bytes.Equal(got, datagram(i, 4+i)) {
			t.Fatalf("packet %d: % x", i, got)
		}
	}
}

// Two frames and the begin of a third arrive whole wherever the stream is cut.
func TestBridgeAtEverySplitPoint(t *testing.T) {
	w := newBridged(t)
	router := w.connect()
	want := [][]byte{datagram(1, 4), datagram(2, 9), datagram(3, 5)}
	var stream []byte
	for i, p := range want {
		if stream = append(stream, dataFrame(p)...); i == 1 {
			stream = append(stream, 7, 0, 0, 9) // an empty frame of another kind means nothing
		}
	}
	for cut := range len(stream) + 1 {
		deadline(t, router)
		if _, err := router.Write(stream[:cut]); err != nil {
			t.Fatal(err)
		}
		w.do(func(*Bridge) {}) // it has read that
		if _, err := router.Write(stream[cut:]); err != nil {
			t.Fatal(err)
		}
		for i, p := range want {
			if got := w.packet(); !bytes.Equal(got, p) {
				t.Fatalf("cut at %d: packet %d is % x", cut, i, got)
			}
		}
	}
}

// A router that does not read costs packets that have not begun, which wait in
// the device's queue or are dropped there, never the middle of the stream: what
// it reads later is whole frames in order, however little at a time.
func TestBridgeTowardsARouterThatDoesNotRead(t *testing.T) {
	w := newBridged(t)
	router := w.connect()
	var sent, seen int
	fill := func() { // until the device's queue is full
		t.Helper()
		if err := w.jail.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		before := sent
		for ; ; sent++ {
			if _, err := w.jail.Write(datagram(sent, 1400)); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil || sent > 1<<16 {
				t.Fatalf("packet %d: %v", sent, err)
			}
		}
		if sent == before {
			t.Fatal("the device takes nothing")
		}
	}
	var in frameReader
	deadline(t, router)
	read := func(part int, until func() bool) {
		t.Helper()
		for buf := make([]byte, part); !until(); {
			n, err := router.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			for rest := buf[:n]; len(rest) > 0; {
				frame, next, err := in.next(rest)
				if err != nil {
					t.Fatal(err)
				}
				if rest = next; frame == nil {
					break
				}
				if !bytes.Equal(frame[frameHeader:], datagram(seen, 1400)) {
					t.Fatalf("packet %d is not whole: % x", seen, frame)
				}
				seen++
			}
		}
	}
	for range 3 {
		fill()
		// The other way is open all the time.
		if _, err := router.Write(dataFrame(datagram(5, 30))); err != nil {
			t.Fatal(err)
		}
		if got := w.packet(); !bytes.Equal(got, datagram(5, 30)) {
			t.Fatalf("% x", got)
		}
		deadline(t, router)
		// In pieces that end anywhere. A socket takes more when three quarters of it are free.
		enough := seen + (sent-seen)*9/10
		read(1001, func() bool { return seen >= enough })
	}
	read(1<<16, func() bool { return seen == sent })
}

// A stream that is none ends the connection and nothing else.
func TestBridgeSurvivesABadStream(t *testing.T) {
	for name, bad := range map[string][]byte{
		"a frame too long": {0, 1, 0x20, 0},
		"a greeting":       []byte("uwsgi-tuntap"),
		"its end":          nil,
		"half a frame":     {0, 100, 0, 0, 1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBridged(t)
			router := w.connect()
			if _, err := router.Write(append(dataFrame(datagram(1, 8)), bad...)); err != nil {
				t.Fatal(err)
			}
			if got := w.packet(); !bytes.Equal(got, datagram(1, 8)) {
				t.Errorf("before it: % x", got)
			}
			if len(bad) == 0 || len(bad) == 7 {
				router.Close()
			}
			select {
			case err := <-w.ended:
				if err == nil {
					t.Error("without a reason")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the bridge keeps the connection")
			}
			w.out(datagram(2, 8)) // waits in the device
			router = w.connect()
			if got := w.frame(router); !bytes.Equal(got, datagram(2, 8)) {
				t.Errorf("on the next connection: % x", got)
			}
		})
	}
}

// What registered goes first on each connection, so that a server that only
// answers is found again.
func TestBridgeAnnouncesAgain(t *testing.T) {
	w := newBridged(t)
	router := w.connect()
	six := tuntest.Echo(blog6, gateway6, 1, 1)
	for _, p := range [][]byte{
		tuntest.Echo(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::2"), 1, 1), // chatter
		tuntest.Echo(netip.IPv6Unspecified(), netip.MustParseAddr("ff02::16"), 1, 1),
		tuntest.Echo(netip.IPv4Unspecified(), gateway, 1, 1),
		{0x45, 0, 0, 1},
		bytes.Repeat([]byte{0x17}, 60),
		datagram(1, 8), six, tuntest.Echo(shop, internet, 1, 1),
	} {
		w.out(p)
	}
	for i, want := range [][]byte{datagram(1, 8), six, tuntest.Echo(shop, internet, 1, 1)} {
		if got := w.frame(router); !bytes.Equal(got, want) {
			t.Fatalf("frame %d: % x", i, got)
		}
	}
	said := []Announcement{<-w.said, <-w.said}
	if want := []Announcement{{blog, gateway}, {blog6, gateway6}}; !slices.Equal(said, want) {
		t.Errorf("announced %v", said)
	}
	check := func(w *bridged, router *os.File) {
		t.Helper()
		for _, a := range said {
			got := w.frame(router)
			var p packet
			if why := p.decode(got); why != pass || p.flow.Src != a.Src || p.flow.Dst != a.Dst {
				t.Fatalf("%v: % x", a, got)
			}
			typ, ok := p.icmpType()
			if want := byte(8); !ok || typ != want && typ != 128 {
				t.Errorf("ICMP type %d", typ)
			}
			if a.Src.Is4() && (tuntest.Checksum(got[:20]) != 0 || tuntest.Checksum(got[20:]) != 0) || a.Src.Is6() && tuntest.TransportChecksum(got) != 0 {
				t.Errorf("checksums of % x", got)
			}
		}
	}
	router.Close()
	<-w.ended
	check(w, w.connect())
	t.Run("from an earlier bridge", func(t *testing.T) {
		next := newBridged(t, append(said, Announcement{shop, gateway}, Announcement{})...)
		check(next, next.connect())
	})
}
