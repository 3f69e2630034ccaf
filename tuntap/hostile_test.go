package tuntap

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// bystander pings the host while something hostile goes on; every ping must
// arrive, in order, with nothing else between them.
func (w *world) bystander(n int, hostile func()) {
	w.t.Helper()
	end := w.vassal("bystander", shop)
	var wg sync.WaitGroup
	wg.Go(hostile)
	for i := range n {
		ping := tuntest.Echo(shop, gateway, 7, uint16(i))
		end.Send(w.t, ping)
		if got := w.host.Receive(w.t); string(got) != string(ping) {
			w.t.Errorf("ping %d: the host got % x", i, got)
			break
		}
		w.host.Send(w.t, tuntest.Echo(gateway, shop, 7, uint16(i)))
		end.Receive(w.t)
	}
	wg.Wait()
	s := w.stats("bystander")
	if len(s.Drops) > 0 {
		w.t.Errorf("the bystander lost %v", s.Drops)
	}
}

// residentKB is the process's resident memory without garbage, which the runtime
// gives back by and by.
func residentKB(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func TestOversizedFrames(t *testing.T) { // T01
	w := newWorld(t, native(), foreignOnly)
	end := dialedVassal(w, blog)
	for i := range scaled(200, 5000) {
		f := w.connect()
		b := append([]byte{0, 0xff, 0xff, byte(i)}, make([]byte, (i*331)%65536)...)
		_, _ = f.conn.Write(b) // the router may close in the middle of it
		f.awaitEOF(5 * time.Second)
		f.conn.Close()
		if h := w.await("closed"); !errors.Is(h.err, errFrameTooLong) {
			t.Fatalf("closed: %v", h.err)
		}
	}
	end.send(udp(blog, internet, 9))
	w.host.Receive(t)
}

// dialedVassal is a foreign peer that is registered.
func dialedVassal(w *world, addr netip.Addr) *foreigner {
	w.t.Helper()
	f := w.connect()
	f.send(tuntest.Echo(addr, gateway, 1, 1))
	w.await("registered")
	w.host.Receive(w.t)
	return f
}

func TestMalformedPackets(t *testing.T) { // T02
	n := scaled(2000, 10000)
	w := newWorld(t, native())
	good := udp(blog, internet, 9)
	bad := [][]byte{
		changed(good, 0, 0x05), changed(good, 0, 0x15), changed(good, 0, 0x55), changed(good, 0, 0x75), changed(good, 0, 0xf5),
		changed(good, 0, 0x41), changed(good, 3, 0xff), append(make([]byte, 10), good...), good[:19], good[:1],
		udp(blog6, shop6, 9)[:39], changed(udp(blog6, shop6, 9), 5, 0),
	}
	w.bystander(scaled(200, 1000), func() {
		f := w.connect()
		for i := range n {
			f.send(bad[i%len(bad)])
		}
	})
	w.dropped("", DropMalformed, uint64(n))
}

func TestSpoofing(t *testing.T) { // T03
	n := scaled(20_000, 1_000_000)
	w := newWorld(t, native())
	end := w.vassal("thief", blog)
	rnd := rand.New(rand.NewPCG(1, 2))
	sources := make([][]byte, 1000)
	for i := range sources {
		src := netip.AddrFrom4([4]byte{10, 9, byte(1 + rnd.IntN(200)), byte(1 + rnd.IntN(200))})
		if i%4 == 0 {
			src = netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(9)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())})
		}
		sources[i] = udp(src, internet, 9)
	}
	w.bystander(scaled(200, 1000), func() {
		for i := range n {
			if err := end.Write(sources[i%len(sources)]); err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	w.dropped("thief", DropSpoofed, uint64(n))
	if !w.host.Empty() {
		t.Error("a spoofed packet reached the host")
	}
}

func TestHijack(t *testing.T) { // T04
	w := newWorld(t, native())
	older, _ := w.handOver(Handover{Vassal: "older"})
	holder := w.vassal("blog", blog)
	newer, _ := w.handOver(Handover{Vassal: "newer"})
	w.bystander(scaled(200, 1000), func() {
		for range 500 {
			older.Send(t, udp(blog, internet, 9))
			newer.Send(t, udp(blog, internet, 9))
		}
	})
	w.dropped("older", DropTaken, 500)
	w.dropped("newer", DropTaken, 500)
	w.host.Send(t, udp(internet, blog, 9))
	holder.Receive(t)
	if !older.Empty() || !newer.Empty() {
		t.Error("a thief got the holder's packet")
	}
}

func TestDescriptorFlood(t *testing.T) { // T10
	w := newWorld(t, native(), foreignOnly)
	file, _ := tuntest.Pair(t)
	defer file.Close()
	many := make([]int, 253)
	for i := range many {
		many[i] = int(file.Fd())
	}
	rights := unix.UnixRights(many...)
	packet := framed(kindData, udp(blog, internet, 9))
	before := nettest.OpenFiles(t, os.Getpid())
	for range scaled(200, 1000) {
		f := w.connect()
		if _, _, err := f.conn.WriteMsgUnix(packet, rights, nil); err != nil {
			t.Fatal(err)
		}
		f.awaitEOF(5 * time.Second)
		f.conn.Close()
		if h := w.await("closed"); !errors.Is(h.err, errDescriptors) {
			t.Fatalf("closed: %v", h.err)
		}
	}
	nettest.Eventually(t, 5*time.Second, "descriptors to be closed", func() bool { return nettest.OpenFiles(t, os.Getpid()) <= before })
	if !w.host.Empty() {
		t.Error("a packet that came with descriptors passed")
	}
}

func TestConnectionFlood(t *testing.T) { // T08, with a socket that anybody may connect to
	w := newWorld(t, native(), foreignOnly, func(r *Router) { r.Limit(Limits{Unregistered: 32}) })
	end := dialedVassal(w, shop)
	held := make([]int, 0, 10_000)
	defer func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}()
	before := residentKB(t)
	for range scaled(1000, 10_000) { // by plain descriptors, which cost this process nothing
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: w.socket}); err != nil {
			t.Fatal(err)
		}
		if rand.IntN(2) == 0 {
			_ = unix.Sendto(fd, []byte{0, 20}, unix.MSG_NOSIGNAL, nil)
		}
		if rand.IntN(8) == 0 {
			held = held[:len(held)-1]
			_ = unix.Close(fd)
		}
	}
	end.send(udp(shop, internet, 9))
	w.host.Receive(t)
	nettest.Eventually(t, 5*time.Second, "the flood to be bounded", func() bool {
		return len(w.r.Snapshot()[0].Peers) <= 33
	})
	if grown := residentKB(t) - before; grown > 10<<10 {
		t.Errorf("memory grew by %d KB", grown)
	}
}

func TestPeersAreBounded(t *testing.T) {
	w := newWorld(t, native(), foreignOnly, func(r *Router) { r.Limit(Limits{Peers: 2}) })
	dialedVassal(w, blog)
	dialedVassal(w, shop)
	w.connect().awaitEOF(5 * time.Second) // both have addresses: nobody gives way
}

// A peer that sends everything interleaved: good packets, rules, empty frames,
// chunks of any size. The good ones all arrive.
func TestInterleavedFrames(t *testing.T) {
	w := newWorld(t, native(), foreignOnly)
	f := w.connect()
	rnd := rand.New(rand.NewPCG(3, 4))
	var stream []byte
	want := 0
	for range 500 {
		switch rnd.IntN(5) {
		case 0:
			stream = append(stream, framed(kindRules, make([]byte, rnd.IntN(100)))...)
		case 1:
			stream = append(stream, framed(byte(rnd.IntN(256)), nil)...)
		case 2:
			stream = append(stream, framed(kindData, make([]byte, rnd.IntN(8193)))...)
		default:
			stream = append(stream, framed(200, udp(blog, internet, 9))...)
			want++
		}
	}
	go func() {
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(3000))
			if _, err := f.conn.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
	}()
	for range want {
		w.host.Receive(t)
	}
	if !w.host.Empty() {
		t.Error("more than the good packets arrived")
	}
}
