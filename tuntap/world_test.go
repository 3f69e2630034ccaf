package tuntap

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// threads is how many threads the tests' routers have. TestWithFourThreads runs
// them all again with four.
var threads = flag.Int("threads", 1, "threads of each router")

var (
	gateway  = netip.MustParseAddr("10.9.0.1")
	gateway6 = netip.MustParseAddr("fd09::1")
	blog     = netip.MustParseAddr("10.9.0.7")
	shop     = netip.MustParseAddr("10.9.0.8")
	blog6    = netip.MustParseAddr("fd09::7")
	shop6    = netip.MustParseAddr("fd09::8")
	internet = netip.MustParseAddr("198.51.100.7")
)

// native is a network as tuntap-router-address makes it, without isolation.
func native() NetworkConfig {
	return NetworkConfig{
		Name: "fief0", Pool: prefixes("10.9.0.0/16", "fd09::/64"), Own: []netip.Addr{gateway, gateway6}, Direct: true,
	}
}

// happened is an event of the router.
type happened struct {
	what   string
	vassal string
	addr   netip.Addr
	why    Reason
	holder string
	err    error
}

// world is a running router with one network whose devices are in memory.
type world struct {
	t      testing.TB
	r      *Router
	name   string
	host   *tuntest.End
	socket string
	events chan happened
	stop   func() // ends the router and waits for it
}

// newWorld starts a serving router and checks for leaks at the end. tune may
// change the router before it runs.
func newWorld(t testing.TB, cfg NetworkConfig, tune ...func(*Router)) *world {
	t.Helper()
	return newWorldWith(t, cfg, nil, tune...)
}

// newWorldWith is newWorld with a UDP socket for the network's gateway.
func newWorldWith(t testing.TB, cfg NetworkConfig, gateway *os.File, tune ...func(*Router)) *world {
	t.Helper()
	nettest.NoLeaks(t)
	w := &world{t: t, name: cfg.Name, events: make(chan happened, 1<<16)}
	var device *os.File
	device, w.host = tuntest.Pair(t)
	w.socket = filepath.Join(t.TempDir(), "router.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()

	w.r, err = New(slog.New(slog.DiscardHandler), w.record(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.r.Threads(*threads); err != nil {
		t.Fatal(err)
	}
	w.r.prepare = func(int) (bool, error) { return false, nil } // devices in memory are no tuns
	for _, change := range tune {
		change(w.r)
	}
	if err := w.r.AddNetwork(cfg, Descriptors{Device: device, Listener: file, Gateway: gateway}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.r.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("router ended with %v", err)
		}
	})
	t.Cleanup(w.stop)
	w.r.Serve()
	return w
}

// holder returns the peer that has an address.
func (w *world) holder(addr netip.Addr) *peer {
	w.t.Helper()
	p := w.r.networks[0].table.Load().owner(addr).peer
	if p == nil {
		w.t.Fatalf("nobody has %v", addr)
	}
	return p
}

// on runs fn on a shard.
func (w *world) on(s *shard, fn func()) { _ = s.mail.do(func() error { fn(); return nil }) }

// later lets time pass for every shard.
func (w *world) later(d time.Duration) {
	for _, s := range w.r.shards {
		w.on(s, func() { s.start = s.start.Add(-d) })
	}
}

// foreignOnly makes every connection of this process a foreigner's.
func foreignOnly(r *Router) { r.emperor = noRuler }

func (w *world) record() Events {
	tell := func(h happened) {
		select {
		case w.events <- h:
		default:
		}
	}
	return Events{
		Registered: func(_, vassal string, addr netip.Addr) {
			tell(happened{what: "registered", vassal: vassal, addr: addr})
		},
		Refused: func(_, vassal string, addr netip.Addr, why Reason, holder string) {
			tell(happened{what: "refused", vassal: vassal, addr: addr, why: why, holder: holder})
		},
		Closed: func(_, vassal string, err error) { tell(happened{what: "closed", vassal: vassal, err: err}) },
	}
}

// await returns the next event of a kind; others before it are forgotten.
func (w *world) await(what string) happened {
	w.t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case h := <-w.events:
			if h.what == what {
				return h
			}
		case <-deadline:
			w.t.Fatalf("nothing was %s in time", what)
		}
	}
}

// handOver hands a device in memory to the router, as the emperor does.
func (w *world) handOver(h Handover) (*tuntest.End, *Lifeline) {
	w.t.Helper()
	end, life, err := w.tryHandOver(h)
	if err != nil {
		w.t.Fatal(err)
	}
	return end, life
}

func (w *world) tryHandOver(h Handover) (*tuntest.End, *Lifeline, error) {
	w.t.Helper()
	file, end := tuntest.Pair(w.t)
	dev, err := NewDevice("eth0", file)
	if err != nil {
		w.t.Fatal(err)
	}
	defer dev.Close()
	life, err := HandOver(w.socket, dev, h)
	if err == nil {
		w.t.Cleanup(func() {
			if err := life.Close(); err != nil {
				w.t.Errorf("close life line: %v", err)
			}
		})
	}
	return end, life, err
}

// vassal hands over a device and registers addr with an echo to the gateway.
func (w *world) vassal(name string, addr netip.Addr) *tuntest.End {
	w.t.Helper()
	end, _ := w.handOver(Handover{Vassal: name, May: []netip.Prefix{single(addr)}})
	w.register(end, addr)
	return end
}

func (w *world) register(end *tuntest.End, addr netip.Addr) {
	w.t.Helper()
	to := gateway
	if addr.Is6() {
		to = gateway6
	}
	end.Send(w.t, tuntest.Echo(addr, to, 1, 1))
	if h := w.await("registered"); h.addr != addr {
		w.t.Fatalf("registered %v; want %v", h.addr, addr)
	}
	w.host.Receive(w.t)
}

// foreigner is a device that speaks frames, as uWSGI's do.
type foreigner struct {
	t    testing.TB
	conn *net.UnixConn
}

func (w *world) connect() *foreigner {
	w.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return &foreigner{w.t, conn}
}

func framed(kind byte, payload []byte) []byte {
	b := make([]byte, frameHeader+len(payload))
	putHeader(b, kind, len(payload))
	copy(b[frameHeader:], payload)
	return b
}

func (f *foreigner) write(b []byte) {
	f.t.Helper()
	f.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := f.conn.Write(b); err != nil {
		f.t.Fatalf("write to the router: %v", err)
	}
}

func (f *foreigner) send(packet []byte) { f.t.Helper(); f.write(framed(kindData, packet)) }

// awaitEOF fails unless the router closes the connection in time.
func (f *foreigner) awaitEOF(within time.Duration) {
	f.t.Helper()
	f.conn.SetReadDeadline(time.Now().Add(within))
	if _, err := io.Copy(io.Discard, f.conn); errors.Is(err, os.ErrDeadlineExceeded) {
		f.t.Fatal("the router did not close the connection")
	}
}

// stats returns the numbers of the only peer that has this vassal's name.
func (w *world) stats(vassal string) PeerStats {
	w.t.Helper()
	s, ok := w.find(vassal)
	if !ok {
		w.t.Fatalf("no peer of vassal %q", vassal)
	}
	return s
}

func (w *world) find(vassal string) (PeerStats, bool) {
	for _, p := range w.r.Snapshot()[0].Peers {
		if p.Vassal == vassal {
			return p, true
		}
	}
	return PeerStats{}, false
}

// settle waits until the router has taken everything that was sent before.
func (w *world) settle(end *tuntest.End, addr netip.Addr) {
	w.t.Helper()
	mark := tuntest.Echo(addr, gateway, 0xfeed, 0xbeef)
	if addr.Is6() {
		mark = tuntest.Echo(addr, gateway6, 0xfeed, 0xbeef)
	}
	end.Send(w.t, mark)
	for string(w.host.Receive(w.t)) != string(mark) {
	}
}

// dropped waits until a peer has so many drops for a reason.
func (w *world) dropped(vassal string, why Reason, want uint64) {
	w.t.Helper()
	nettest.Eventually(w.t, 5*time.Second, "drops counted as "+why.String(), func() bool {
		s, _ := w.find(vassal)
		return s.Drops[why] >= want
	})
	if got := w.stats(vassal).Drops; got[why] != want {
		w.t.Fatalf("drops of %q: %v; want %d %s", vassal, got, want, why)
	}
}

func udp(src, dst netip.Addr, port uint16) []byte {
	return tuntest.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, port), []byte("hello"))
}

func tcp(src, dst netip.Addr, port uint16, flags byte) []byte {
	return tuntest.TCP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, port), flags, 1000, 2000, nil)
}
