package tuntap

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// sealed is a datagram that says whether it is whole.
func sealed(src, dst netip.Addr, number uint64) []byte {
	payload := binary.BigEndian.AppendUint64(nil, number)
	sum := sha256.Sum256(payload)
	return tuntest.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, 53), append(payload, sum[:]...))
}

// unseal returns the number of a sealed datagram for dst.
func unseal(b []byte, dst netip.Addr) (uint64, error) {
	var p packet
	if why := p.decode(b); why != pass || p.flow.Dst != dst || len(p.l4) != udpHeader+8+sha256.Size {
		return 0, fmt.Errorf("a device of %v was given % x", dst, b)
	}
	payload := p.l4[udpHeader:]
	if sum := sha256.Sum256(payload[:8]); string(sum[:]) != string(payload[8:]) {
		return 0, fmt.Errorf("the payload is spoilt: % x", payload)
	}
	return binary.BigEndian.Uint64(payload), nil
}

// Devices come and go while other shards write to them: what is written to one
// never reaches another, which may have its descriptor's number by then.
func TestPeersComeAndGoUnderTraffic(t *testing.T) {
	w := newWorld(t, native(), four)
	const senders, comers = 3, 3
	rounds := scaled(150, 5000)
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 1, byte(i + 1)}) }
	var sending, coming sync.WaitGroup
	var stop atomic.Bool
	var got atomic.Uint64
	for i := range senders {
		end := w.vassal(fmt.Sprint("sender", i), netip.AddrFrom4([4]byte{10, 9, 2, byte(i + 1)}))
		sending.Go(func() {
			for number := uint64(0); !stop.Load(); number++ {
				if err := end.Write(sealed(netip.AddrFrom4([4]byte{10, 9, 2, byte(i + 1)}), address(int(number)%comers), number)); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				if number%8 == 0 { // answers, when nobody is there
					for !end.Empty() {
					}
				}
			}
		})
	}
	for i := range comers {
		coming.Go(func() {
			for range rounds {
				end, life, err := w.tryHandOver(Handover{Vassal: fmt.Sprint("comer", i), Registered: []netip.Addr{address(i)}})
				if err != nil {
					t.Errorf("hand-over: %v", err)
					return
				}
				for range 5 {
					b, err := end.Read(5 * time.Second)
					if err == nil {
						_, err = unseal(b, address(i))
					}
					if err != nil {
						t.Errorf("receive: %v", err)
						break
					}
					got.Add(1)
				}
				if err := life.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				for { // the rest, to the end: then the router has closed the device
					b, err := end.Read(5 * time.Second)
					if errors.Is(err, io.EOF) {
						break
					}
					if err == nil {
						_, err = unseal(b, address(i))
					}
					if err != nil {
						t.Errorf("receive the rest: %v", err)
						break
					}
				}
				end.Close()
			}
		})
	}
	coming.Wait()
	stop.Store(true)
	sending.Wait()
	if want := uint64(comers * rounds * 5); got.Load() != want {
		t.Errorf("%d packets received; want %d", got.Load(), want)
	}
}

// One address, many that want it, holders that go: there is one holder at a
// time, and what he has and the table agree.
func TestOneHolderOnly(t *testing.T) {
	w := newWorld(t, native(), four)
	n := w.r.networks[0]
	var claiming, checking sync.WaitGroup
	var stop atomic.Bool
	var held atomic.Int64
	checking.Go(func() {
		for !stop.Load() {
			w.r.view.Lock()
			peers := slices.Clone(n.peers)
			w.r.view.Unlock()
			n.mu.Lock()
			var holders []*peer
			for _, p := range peers {
				if slices.Contains(p.holds.Load().addrs, blog) {
					holders = append(holders, p)
				}
			}
			owner := n.table.Load().owner(blog)
			n.mu.Unlock()
			if len(holders) > 1 || len(holders) == 1 && owner.peer != holders[0] {
				t.Errorf("%d holders, and the table says %+v", len(holders), owner)
				return
			}
		}
	})
	checking.Go(func() { // the host takes what comes
		for !stop.Load() {
			_, _ = w.host.Read(10 * time.Millisecond)
		}
	})
	for i := range 4 {
		name := fmt.Sprint("vassal", i)
		claiming.Go(func() {
			for range scaled(60, 2000) {
				end, life, err := w.tryHandOver(Handover{Vassal: name})
				if err != nil {
					t.Errorf("hand-over: %v", err)
					return
				}
				nettest.Eventually(t, 20*time.Second, name+" to get the address", func() bool {
					_ = end.Write(udp(blog, internet, 9))
					s, _ := w.find(name)
					return len(s.Addresses) == 1
				})
				held.Add(1)
				if err := life.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
	claiming.Wait()
	stop.Store(true)
	checking.Wait()
	if owner := n.table.Load().owner(blog); owner.kind != ownerPool || held.Load() == 0 {
		t.Errorf("all have gone, and the table says %+v; held %d times", owner, held.Load())
	}
}

// The first packets of many peers for one address, all at once: one gets it.
func TestClaimsAtOnce(t *testing.T) {
	w := newWorld(t, native(), four)
	for round := range scaled(20, 500) {
		addr := netip.AddrFrom4([4]byte{10, 9, 3, byte(1 + round%200)})
		var ends []*tuntest.End
		var lives []*Lifeline
		for i := range 8 {
			end, life := w.handOver(Handover{Vassal: fmt.Sprint(i)})
			ends, lives = append(ends, end), append(lives, life)
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i, end := range ends {
			wg.Go(func() {
				<-start
				for number := range 20 {
					end.Send(t, sealed(addr, internet, uint64(i)<<32|uint64(number)))
				}
			})
		}
		close(start)
		wg.Wait()
		winner := w.await("registered").vassal
		for number := range 20 {
			got, err := unseal(w.host.Receive(t), internet)
			if err != nil || fmt.Sprint(got>>32) != winner || int(got&0xffff) != number {
				t.Fatalf("packet %d of %d, %v; %s is the holder", got&0xffff, got>>32, err, winner)
			}
		}
		nettest.Eventually(t, 5*time.Second, "the others to be refused", func() bool {
			refused := uint64(0)
			for _, p := range w.r.Snapshot()[0].Peers {
				refused += p.Drops[DropTaken]
			}
			return refused == 7*20
		})
		for _, life := range lives {
			if err := life.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !w.host.Empty() {
			t.Fatal("a packet of another passed")
		}
	}
}

// Four senders, each on its own shard, and one receiver: each flow keeps its
// order, merged or not, and every packet is counted once.
func TestManySendersOneReceiver(t *testing.T) {
	for name, cuts := range map[string]bool{"one by one": false, "merged": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, native(), four, func(r *Router) {
				r.prepare = func(int) (bool, error) { return cuts, nil }
			})
			receiver := w.vassal("shop", shop)
			before := w.stats("shop")
			const senders = 4
			count := scaled(3000, 200_000)
			var wg sync.WaitGroup
			shards := map[*shard]bool{}
			for i := range senders {
				src := netip.AddrFrom4([4]byte{10, 9, 2, byte(i + 1)})
				end := w.vassal(fmt.Sprint("sender", i), src)
				shards[w.holder(src).shard] = true
				wg.Go(func() {
					for number := range count {
						u := partial(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(shop, 53), binary.BigEndian.AppendUint64(nil, uint64(number)))
						u.packet[6], u.packet[10] = 0x40, u.packet[10]-0x40 // never fragmented: ids do not matter
						if _, err := end.File().Write(u.framed()); err != nil {
							t.Errorf("send: %v", err)
							return
						}
					}
				})
			}
			if len(shards) != 4 {
				t.Fatalf("the senders are on %d shards", len(shards))
			}
			var received, size, writes int
			last := map[byte]int{}
			take := func(b []byte) {
				writes++
				for _, b := range (undone{b[:vnetLen:vnetLen], b[vnetLen:]}).plainly() {
					number := int(binary.BigEndian.Uint64(b[28:]))
					if number < last[b[15]] {
						t.Errorf("sender %d: packet %d after %d", b[15], number, last[b[15]]-1)
					}
					last[b[15]] = number + 1
					received, size = received+1, size+len(b)
				}
			}
			buf := make([]byte, bufferSize)
			read := func(wait time.Duration) bool {
				_ = receiver.File().SetReadDeadline(time.Now().Add(wait))
				n, err := receiver.File().Read(buf)
				if err == nil {
					take(buf[:n])
				}
				return err == nil
			}
			all := func() bool {
				s := w.stats("shop")
				return s.RxPackets-before.RxPackets+s.Drops[DropFull] == uint64(senders*count)
			}
			deadline := time.Now().Add(60 * time.Second)
			for !all() && time.Now().Before(deadline) {
				for read(10 * time.Millisecond) {
				}
			}
			wg.Wait()
			for read(10 * time.Millisecond) {
			}
			s := w.stats("shop")
			if got := s.RxPackets - before.RxPackets; !all() || int(got) != received {
				t.Errorf("%d packets counted, %d received, drops %v; %d were sent", got, received, s.Drops, senders*count)
			}
			if got := s.RxBytes - before.RxBytes; int(got) != size {
				t.Errorf("%d bytes counted, %d received", got, size)
			}
			if cuts == (writes == received) {
				t.Errorf("%d writes for %d datagrams", writes, received)
			}
			for i := range senders {
				if s := w.stats(fmt.Sprint("sender", i)); s.TxPackets != uint64(count)+1 {
					t.Errorf("sender %d: %d packets counted; want %d", i, s.TxPackets, count+1)
				}
			}
		})
	}
}

// What passed between two shards is answered and followed as on one.
func TestAnswersAndFragmentsAcrossShards(t *testing.T) {
	cfg := isolated()
	cfg.Out = []firewall.Rule{{Action: firewall.Allow, Src: single(blog)}}
	cfg.In = []firewall.Rule{{Action: firewall.Deny, Proto: protoUDP, Ports: []firewall.PortRange{{First: 22, Last: 22}}}}
	w := newWorld(t, cfg, four)
	a, b := w.vassal("blog", blog), w.vassal("shop", shop)
	if w.holder(blog).shard == w.holder(shop).shard || w.holder(blog).shard == w.r.shards[0] {
		t.Fatal("they are not on different shards")
	}
	answer := tuntest.UDP(netip.AddrPortFrom(shop, 53), netip.AddrPortFrom(blog, 40000), []byte("answer"))
	b.Send(t, answer)
	w.dropped("shop", DropIsolate, 1)
	a.Send(t, udp(blog, shop, 53))
	b.Receive(t)
	b.Send(t, answer)
	if got := a.Receive(t); string(got) != string(answer) {
		t.Errorf("got % x", got)
	}
	b.Send(t, udp(shop, blog, 53)) // no answer
	w.dropped("shop", DropIsolate, 2)

	long := func(src netip.Addr, port uint16) []byte {
		return tuntest.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(shop, port), make([]byte, 56))
	}
	// Sent by a neighbour and sent by the host: neither has the other's first part.
	a.Send(t, tuntest.Fragment(long(blog, 80), 1, 0, 32))
	b.Receive(t)
	w.host.Send(t, tuntest.Fragment(long(blog, 80), 1, 32, 64))
	w.dropped("shop", DropFragment, 1)
	a.Send(t, tuntest.Fragment(long(blog, 80), 1, 32, 64))
	b.Receive(t)
	w.host.Send(t, tuntest.Fragment(long(internet, 80), 2, 0, 32))
	b.Receive(t)
	w.host.Send(t, tuntest.Fragment(long(internet, 80), 2, 32, 64))
	b.Receive(t)
	a.Send(t, tuntest.Fragment(long(blog, 22), 3, 0, 32))
	a.Send(t, tuntest.Fragment(long(blog, 22), 3, 32, 64))
	w.dropped("shop", DropRule, 1)
	w.dropped("shop", DropFragment, 2)
	if !b.Empty() {
		t.Error("a part for a denied port passed")
	}
}

// Flows are written by many shards and read by one: those that came are
// known, and no other.
func TestFlowsFromManyShards(t *testing.T) {
	table := new(flows)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			f := firewall.Flow{Src: internet, Dst: blog, HasPorts: true, Proto: protoUDP, DstPort: uint16(i)}
			for range scaled(50_000, 5_000_000) {
				f.SrcPort = f.SrcPort%60000 + 1
				table.came(&f, 1)
			}
		})
	}
	never := firewall.Flow{Src: blog, Dst: internet, HasPorts: true, Proto: protoUDP, SrcPort: 9}
	for range scaled(100_000, 5_000_000) {
		never.DstPort++
		if table.answers(&never, 1) {
			t.Fatal("a flow that never came is answered")
		}
	}
	wg.Wait()
	f := firewall.Flow{Src: internet, Dst: blog, HasPorts: true, Proto: protoUDP, DstPort: 3, SrcPort: 7}
	table.came(&f, 2)
	back := firewall.Flow{Src: blog, Dst: internet, HasPorts: true, Proto: protoUDP, SrcPort: 3, DstPort: 7}
	if !table.answers(&back, 3) {
		t.Error("the newest flow is not known")
	}
}
