package tuntap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
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
	if err := end.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		w.t.Error(err)
	}
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
// else: the others get theirs at the rate that they have beside one that reads.
func TestStuckReader(t *testing.T) { // T13
	for name, device := range map[string]bool{"frames": false, "device": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, native())
			stuck := w.receiver("stuck", blog, device)
			greedy := netip.MustParseAddr("10.9.0.30")
			w.consume(w.receiver("greedy", greedy, device))
			o := bystanders{w, w.consume(w.receiver("shop", shop, true)), w.consume(w.receiver("third", third, false))}
			// Beside other tests a rate is worth little; a peer that costs the others
			// theirs shows all the same.
			least := float64(scaled(50, 95)) / 100
			before, sent := liveBytes(), 0
			best := 0.0
			for range 3 { // what else runs on the machine only makes it less
				n := scaled(30_000, 1_000_000)
				alone, beside := o.rate(n, greedy), o.rate(n, blog)
				t.Logf("others' packets a second: %.0f beside one that reads, %.0f beside one that does not", alone, beside)
				sent, best = sent+n, max(best, beside/alone)
				if best >= least {
					break
				}
			}
			got := w.judged(blog, uint64(sent), greedy)
			grown := liveBytes() - before
			t.Logf("%d of %d taken, %d bytes; memory grew by %d bytes", got.RxPackets, sent, got.RxBytes, grown)
			if best < least {
				t.Errorf("the others had %.1f %% of their rate; want %.0f %%", 100*best, 100*least)
			}
			if got.Drops[DropFull] == 0 || got.RxBytes > 1<<20 {
				t.Errorf("%d bytes were taken for it, drops %v", got.RxBytes, got.Drops)
			}
			if grown > 1<<20 {
				t.Errorf("memory grew by %d bytes", grown)
			}
			// What waits is whole: it reads on, and every packet is one that was sent.
			for range got.RxPackets {
				if b, err := stuck.next(); string(b) != string(flood(blog)) {
					t.Fatalf("a packet of %d bytes, %v", len(b), err)
				}
			}
			w.host.Send(t, udp(internet, blog, 9))
			if b, err := stuck.next(); string(b) != string(udp(internet, blog, 9)) {
				t.Errorf("after the queue was drained: % x, %v", b, err)
			}
		})
	}
}

var third = netip.MustParseAddr("10.9.0.31")

func flood(to netip.Addr) []byte {
	return tuntest.UDP(netip.AddrPortFrom(internet, 1), netip.AddrPortFrom(to, 2), make([]byte, 1400))
}

// receiver is a registered peer of either kind.
type receiver struct {
	next  func() ([]byte, error) // waits for a packet
	close func() error
}

func (w *world) receiver(name string, addr netip.Addr, device bool) receiver {
	w.t.Helper()
	if device {
		end := w.vassal(name, addr)
		return receiver{func() ([]byte, error) { return end.Read(time.Minute) }, end.Close}
	}
	conn := dialedVassal(w, addr).conn
	stream, b := bufio.NewReaderSize(conn, 1<<16), make([]byte, 1<<16)
	return receiver{func() ([]byte, error) {
		if _, err := io.ReadFull(stream, b[:frameHeader]); err != nil {
			return nil, err
		}
		n := int(binary.LittleEndian.Uint16(b[1:]))
		_, err := io.ReadFull(stream, b[:n])
		return b[:n], err
	}, conn.Close}
}

// consume reads all that comes until the end of the test, and counts it.
func (w *world) consume(r receiver) *atomic.Int64 {
	came, ended := new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := r.next(); err != nil {
				return // closed
			}
			came.Add(1)
		}
	}()
	w.t.Cleanup(func() {
		r.close()
		<-ended
	})
	return came
}

// bystanders are shop, by a device, and third, by frames, and what came to them.
type bystanders struct {
	w           *world
	shop, third *atomic.Int64
}

func (o *bystanders) came() int64 { return o.shop.Load() + o.third.Load() }

// rate sends n packets to one peer, a gigabit a second, and one for ten of them to
// the others, unless these are behind. It returns how many came to the others a
// second. All have come in the end.
func (o *bystanders) rate(n int, to netip.Addr) float64 {
	o.w.t.Helper()
	const every, ahead = 10, 64 // of the others' packets; a device holds some hundred
	load, light := flood(to), [2][]byte{udp(internet, shop, 9), udp(internet, third, 9)}
	each := time.Duration(len(load)) * 8 // nanoseconds, at a bit each
	before, sent := o.came(), int64(0)
	start := time.Now()
	for i := range n {
		if early := time.Duration(i)*each - time.Since(start); early > time.Millisecond {
			time.Sleep(early) // a gigabit a second is what is asked
		}
		o.w.host.Send(o.w.t, load)
		if i%every == 0 && sent-(o.came()-before) < ahead {
			o.w.host.Send(o.w.t, light[i/every%2])
			sent++
		}
	}
	took := time.Since(start)
	rate := float64(o.came()-before) / took.Seconds()
	o.w.t.Logf("%d packets to %v in %v: %.2f Gbit/s", n, to, took, float64(n*len(load)*8)/float64(took.Nanoseconds()))
	nettest.Eventually(o.w.t, 5*time.Second, "the others to have got everything", func() bool { return o.came()-before == sent })
	return rate
}

// judged waits until n packets for addr were taken or dropped, and checks that
// but for spared nobody else lost any. It returns addr's numbers.
func (w *world) judged(addr netip.Addr, n uint64, spared netip.Addr) (got PeerStats) {
	w.t.Helper()
	nettest.Eventually(w.t, 5*time.Second, "all packets to be judged", func() bool {
		network := w.r.Snapshot()[0]
		if len(network.Drops) > 0 {
			w.t.Fatalf("nobody's packets were lost: %v", network.Drops)
		}
		for _, p := range network.Peers {
			switch {
			case slices.Contains(p.Addresses, addr):
				got = p
			case len(p.Drops) > 0 && !slices.Contains(p.Addresses, spared):
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
