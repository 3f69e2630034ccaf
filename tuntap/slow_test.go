package tuntap

import (
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// Peers that leave half a frame standing are closed in time, whatever they drip,
// and until then cost the others nothing that these could feel.
func TestSlowClients(t *testing.T) { // T09
	n := scaled(150, 1000)
	w := newWorld(t, native(), foreignOnly, func(r *Router) {
		r.Limit(Limits{Unregistered: 2 * n})
		if scaled(0, 1) == 0 {
			r.half = int64(600 * time.Millisecond)
		}
	})
	bound := time.Millisecond
	if scaled(0, 1) == 0 {
		bound *= 20 // the race detector and the tests beside this one take their time
	}
	end := dialedVassal(w, shop)
	best := time.Hour
	for range 3 { // what else runs on the machine only makes it longer
		if best = min(best, w.slowly(n, end, shop)); best <= bound {
			return
		}
	}
	t.Errorf("p99 of another peer's round trips is %v; want %v at most", best, bound)
}

// slowly has n peers begin a frame and go on with a byte in each half of the
// limit, which must not buy them time. Meanwhile end, which has addr, pings the
// host. It returns the p99 of its round trips.
func (w *world) slowly(n int, end *foreigner, addr netip.Addr) time.Duration {
	w.t.Helper()
	limit := time.Duration(w.r.half)
	peers := make([]*foreigner, n)
	start := time.Now()
	for i := range peers {
		peers[i] = w.connect()
		peers[i].write([]byte{0})
	}
	closed := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		slow := framed(kindData, udp(blog, internet, 9))
		drip := time.NewTicker(limit / 2 / time.Duration(n))
		defer drip.Stop()
		for i := n; ; i++ {
			select {
			case <-drip.C:
				_, _ = peers[i%n].conn.Write(slow[i/n%len(slow):][:1]) // the router may have closed it
			case <-closed:
				return
			}
		}
	})
	trips := make(chan []time.Duration, 1)
	go func() { trips <- roundTrips(w, end, addr, closed) }()
	for range peers {
		if h := w.await("closed"); !errors.Is(h.err, errHalfFrame) {
			w.t.Errorf("closed: %v", h.err)
		}
	}
	took := time.Since(start)
	close(closed)
	dripping.Wait()
	if took < limit || took > limit+3*time.Second {
		w.t.Errorf("closed after %v; want %v", took, limit)
	}
	all := <-trips
	if len(all) < 100 {
		w.t.Fatalf("%d round trips in %v", len(all), took)
	}
	slices.Sort(all)
	p50, p99 := all[len(all)/2], all[len(all)*99/100]
	w.t.Logf("%d slow peers closed after %v; %d round trips of another: p50 %v, p99 %v, at most %v", n, took, len(all), p50, p99, all[len(all)-1])
	return p99
}

// roundTrips pings the host until stop is closed, and returns how long each took.
func roundTrips(w *world, end *foreigner, addr netip.Addr, stop <-chan struct{}) (all []time.Duration) {
	ping, pong := framed(kindData, tuntest.Echo(addr, gateway, 7, 1)), tuntest.Echo(gateway, addr, 7, 1)
	b := make([]byte, frameHeader+len(pong))
	for {
		select {
		case <-stop:
			return all
		default:
		}
		start := time.Now()
		_, err := end.conn.Write(ping)
		if err == nil {
			_, err = w.host.Read(5 * time.Second)
		}
		if err == nil {
			err = w.host.Write(pong)
		}
		if err == nil {
			_, err = end.conn.Read(b)
		}
		if err != nil {
			w.t.Errorf("round trip %d: %v", len(all), err)
			return all
		}
		all = append(all, time.Since(start))
	}
}

func TestSlowButWholeFramesAreFine(t *testing.T) {
	w := newWorld(t, native(), foreignOnly, func(r *Router) { r.half = int64(400 * time.Millisecond) })
	f := w.connect()
	frame := framed(kindData, udp(blog, internet, 9))
	for range 4 { // longer than the limit in all, never within one frame
		f.write(frame[:10])
		time.Sleep(150 * time.Millisecond) // the slowness itself is what is tested
		f.write(frame[10:])
		w.host.Receive(t)
	}
}

// A gigabit a second for a peer that reads nothing fills its queue, and nothing
// else: the others get all of theirs, when it is sent.
func TestStuckReader(t *testing.T) { // T13
	for name, stick := range map[string]func(*world) func() []byte{
		"frames": func(w *world) func() []byte { return dialedVassal(w, blog).receive },
		"device": func(w *world) func() []byte {
			end := w.vassal("blog", blog)
			return func() []byte { return end.Receive(w.t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, native())
			receive := stick(w)
			others := newReaders(w)
			before := liveBytes()
			n, best := 0, 0.0
			for range 3 { // what else runs on the machine only makes it less
				k, share := others.beside(scaled(30_000, 1_000_000))
				n, best = n+k, max(best, share)
				if best >= 0.95 {
					break
				}
			}
			got := w.judged(blog, uint64(n))
			grown := liveBytes() - before
			t.Logf("%d of %d taken, %d bytes; others got %.1f %% in time; memory grew by %d bytes", got.RxPackets, n, got.RxBytes, 100*best, grown)
			if best < 0.95 {
				t.Errorf("the others got %.1f %% in time; want 95 %%", 100*best)
			}
			if got.Drops[DropFull] == 0 || got.RxBytes > 1<<20 {
				t.Errorf("%d bytes were taken for it, drops %v", got.RxBytes, got.Drops)
			}
			if grown > 1<<20 {
				t.Errorf("memory grew by %d bytes", grown)
			}
			// What waits is whole: it reads on, and every packet is one that was sent.
			for range got.RxPackets {
				if b := receive(); string(b) != string(flood) {
					t.Fatalf("a packet of %d bytes", len(b))
				}
			}
			w.host.Send(t, udp(internet, blog, 9))
			if b := receive(); string(b) != string(udp(internet, blog, 9)) {
				t.Error("nothing comes after the queue was drained")
			}
		})
	}
}

var flood = tuntest.UDP(netip.AddrPortFrom(internet, 1), netip.AddrPortFrom(blog, 2), make([]byte, 1400))

// readers are peers that read: one by a device and one by frames.
type readers struct {
	w    *world
	both [2]*reader
}

type reader struct {
	packet []byte
	came   atomic.Int64
}

var third = netip.MustParseAddr("10.9.0.30")

func newReaders(w *world) *readers {
	o := &readers{w, [2]*reader{{packet: udp(internet, shop, 9)}, {packet: udp(internet, third, 9)}}}
	device, stream := w.vassal("shop", shop), dialedVassal(w, third)
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			if _, err := device.Read(time.Minute); err != nil {
				return // the end of the test
			}
			o.both[0].came.Add(1)
		}
	})
	reading.Go(func() {
		b, bytes, size := make([]byte, 1<<16), 0, frameHeader+len(o.both[1].packet)
		for {
			n, err := stream.conn.Read(b)
			if err != nil {
				return
			}
			bytes += n
			o.both[1].came.Store(int64(bytes / size))
		}
	})
	w.t.Cleanup(func() {
		device.Close()
		stream.conn.Close()
		reading.Wait()
	})
	return o
}

// beside sends n packets to the peer that is stuck, a gigabit a second, and one
// in ten to the others. It returns how many it sent, and what share of the others'
// had come when the last was sent; all of them come in the end.
func (o *readers) beside(n int) (int, float64) {
	o.w.t.Helper()
	came := func() int64 { return o.both[0].came.Load() + o.both[1].came.Load() }
	const every = 10
	each := time.Duration(len(flood)) * 8 // nanoseconds, at a bit each
	before, sent := came(), int64(0)
	start := time.Now()
	for i := range n {
		if ahead := time.Duration(i)*each - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead) // the rate is what is tested
		}
		o.w.host.Send(o.w.t, flood)
		if i%every == 0 {
			o.w.host.Send(o.w.t, o.both[i/every%2].packet)
			sent++
		}
	}
	took := time.Since(start)
	share := float64(came()-before) / float64(sent)
	o.w.t.Logf("%d packets in %v: %.2f Gbit/s", n, took, float64(n*len(flood)*8)/float64(took.Nanoseconds()))
	nettest.Eventually(o.w.t, 5*time.Second, "the others to have got everything", func() bool { return came()-before == sent })
	return n, share
}

// judged waits until n packets for addr were taken or dropped, checks that nobody
// else lost any, and returns its numbers.
func (w *world) judged(addr netip.Addr, n uint64) (got PeerStats) {
	w.t.Helper()
	nettest.Eventually(w.t, 5*time.Second, "all packets to be judged", func() bool {
		network := w.r.Snapshot()[0]
		if len(network.Drops) > 0 {
			w.t.Fatalf("nobody's packets were lost: %v", network.Drops)
		}
		for _, p := range network.Peers {
			if slices.Contains(p.Addresses, addr) {
				got = p
			} else if len(p.Drops) > 0 {
				w.t.Fatalf("another one, %v, lost %v", p.Addresses, p.Drops)
			}
		}
		return got.RxPackets+got.Drops[DropFull] == n
	})
	return got
}

// liveBytes is what this process's goroutines hold: not its resident memory, in
// which the race detector's and the collector's share comes and goes.
func liveBytes() int {
	for range 2 { // what is in a pool is freed by the second
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
