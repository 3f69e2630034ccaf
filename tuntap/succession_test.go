package tuntap

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// kept is a device in memory as an emperor keeps it: one open file for all of
// its hand-overs.
type kept struct {
	*tuntest.End
	dev *Device
}

func keep(t testing.TB) *kept {
	t.Helper()
	file, end := tuntest.Pair(t)
	dev, err := NewDevice("eth0", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return &kept{end, dev}
}

func (w *world) give(k *kept, h Handover) *Lifeline {
	w.t.Helper()
	life, err := HandOver(w.socket, k.dev, h)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { life.conn.Close() })
	return life
}

// newEmperor has this process succeed itself.
func (w *world) newEmperor() {
	w.r.Abandon()
	w.r.Succeed(int32(os.Getpid()), uint32(os.Getuid()))
}

// forget forgets what was told so far.
func (w *world) forget() {
	for len(w.events) > 0 {
		<-w.events
	}
}

// quiet says that nothing of a kind was told so far.
func (w *world) quiet(what string) {
	w.t.Helper()
	for {
		select {
		case h := <-w.events:
			if h.what == what {
				w.t.Errorf("%s: %+v", what, h)
			}
		default:
			return
		}
	}
}

func TestOrphanIsClaimed(t *testing.T) {
	w := newWorld(t, native())
	blogs := keep(t)
	h := Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Registered: []netip.Addr{blog}, Rules: []DeviceRule{
		{Direction: firewall.Out, Rule: firewall.Rule{Action: firewall.Deny, Dst: single(shop), File: "blog.ini", Line: 3}},
	}}
	w.give(blogs, h)
	blogs.Send(t, udp(blog, shop, 9))
	w.dropped("blog", DropRule, 1)
	var before, after []int
	for range 50 {
		before = append(before, nettest.OpenFiles(t, os.Getpid()))
		w.r.Abandon()
		blogs.Send(t, udp(blog, internet, 9))
		w.host.Receive(t)
		w.r.Succeed(int32(os.Getpid()), uint32(os.Getuid()))
		w.host.Send(t, udp(internet, blog, 9))
		blogs.Receive(t)
		old := w.holder(blog)
		life := w.give(blogs, h)
		if w.holder(blog) != old {
			t.Fatal("another peer has the address")
		}
		w.r.Settle()
		blogs.Send(t, udp(blog, internet, 9))
		w.host.Receive(t)
		select {
		case <-life.Lost():
			t.Fatal("the new life line is lost")
		default:
		}
		if s := w.stats("blog"); s.Drops[DropRule] != 1 || s.Out[0].Hits != 1 {
			t.Fatalf("%+v", s)
		}
		after = append(after, nettest.OpenFiles(t, os.Getpid()))
	}
	w.quiet("closed")
	// Each round leaves the connection of the test's own end, which ended.
	if grown := after[49] - before[1]; grown > 50+2 {
		t.Errorf("%d descriptors more", grown)
	}
	if s := w.stats("blog"); s.TxPackets != 101 || s.RxPackets != 50 {
		t.Errorf("%+v", s)
	}
}

func TestClaimedOrphanSaysGoodbye(t *testing.T) {
	w := newWorld(t, native())
	blogs := keep(t)
	w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	w.newEmperor()
	life := w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog, blog6}})
	if a := w.stats("blog").Addresses; !slices.Equal(a, []netip.Addr{blog, blog6}) {
		t.Errorf("addresses %v", a)
	}
	w.r.Settle()
	if err := life.Close(); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 5*time.Second, "it is gone", func() bool { _, ok := w.find("blog"); return !ok })
	shops, _ := w.handOver(Handover{Vassal: "shop"})
	w.forget()
	w.register(shops, blog)
}

// An emperor who is killed right after he settled has claimed what he claimed.
func TestClaimedOrphanOutlivesItsEmperor(t *testing.T) {
	w := newWorld(t, native())
	blogs := keep(t)
	w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	w.newEmperor()
	life := w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	life.conn.CloseWrite()
	<-life.Lost()
	w.r.Settle()
	w.settle(blogs.End, blog)
	w.quiet("closed")
}

func TestUnclaimedOrphanIsClosed(t *testing.T) {
	w := newWorld(t, native())
	blogs, shops := keep(t), keep(t)
	w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	life := w.give(shops, Handover{Vassal: "shop", Registered: []netip.Addr{shop}})
	w.newEmperor()
	<-life.Lost()
	w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	if s := w.stats("shop"); !slices.Equal(s.Addresses, []netip.Addr{shop}) {
		t.Errorf("before: %+v", s)
	}
	w.r.Settle()
	if _, ok := w.find("shop"); ok {
		t.Error("it is still there")
	}
	next, _ := w.handOver(Handover{Vassal: "next"})
	w.forget()
	w.register(next, shop)
	w.settle(blogs.End, blog)
}

// What is handed over anew otherwise than before is a new peer; its device is
// not read twice, and its address is not free in between.
func TestOrphanThatDoesNotFit(t *testing.T) {
	deny := []DeviceRule{{Direction: firewall.Out, Rule: firewall.Rule{Action: firewall.Deny, Dst: single(shop)}}}
	for _, c := range []struct {
		name string
		next Handover
		fits bool
	}{
		{"the same", Handover{Vassal: "blog", Registered: []netip.Addr{blog}}, true},
		{"nothing said", Handover{Vassal: "blog"}, true},
		{"the address granted", Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}}, true},
		{"another address", Handover{Vassal: "blog", May: []netip.Prefix{single(shop)}, Registered: []netip.Addr{shop}}, false},
		{"other rules", Handover{Vassal: "blog", Rules: deny, Registered: []netip.Addr{blog}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, native())
			blogs := keep(t)
			w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
			old := w.holder(blog)
			w.newEmperor()
			w.give(blogs, c.next)
			w.r.Settle()
			stats := w.r.Snapshot()[0].Peers
			if len(stats) != 1 {
				t.Fatalf("%+v", stats)
			}
			if same := !old.gone.Load(); same != c.fits {
				t.Errorf("the same peer: %v, want %v", same, c.fits)
			}
			addr := stats[0].Addresses[0]
			blogs.Send(t, udp(addr, internet, 9))
			w.host.Receive(t)
			if !w.host.Empty() {
				t.Error("the packet was read twice")
			}
		})
	}
}

// The vassal's name alone proves nothing: another device is another peer.
func TestOtherDeviceIsNoOrphans(t *testing.T) {
	w := newWorld(t, native())
	old := keep(t)
	w.give(old, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	w.newEmperor()
	other := keep(t)
	w.give(other, Handover{Vassal: "blog"})
	other.Send(t, udp(blog, internet, 9))
	if h := w.await("refused"); h.why != DropTaken || h.holder != "blog" {
		t.Errorf("refused %+v", h)
	}
	w.r.Settle()
	other.Send(t, udp(blog, internet, 9))
	w.host.Receive(t)
}

func TestNobodyHandsOverWithoutAnEmperor(t *testing.T) {
	w := newWorld(t, native())
	blogs := keep(t)
	w.r.Abandon()
	if _, err := HandOver(w.socket, blogs.dev, Handover{Vassal: "blog"}); err == nil {
		t.Fatal("a hand-over was taken")
	}
	w.r.Succeed(int32(os.Getpid())+1, uint32(os.Getuid()))
	if _, err := HandOver(w.socket, blogs.dev, Handover{Vassal: "blog"}); err == nil {
		t.Fatal("a hand-over of a stranger was taken")
	}
	w.r.Succeed(int32(os.Getpid()), uint32(os.Getuid())+1)
	if _, err := HandOver(w.socket, blogs.dev, Handover{Vassal: "blog"}); err == nil {
		t.Fatal("a hand-over of another user was taken")
	}
}

// Half a hand-over of an emperor that was killed is nobody's.
func TestHalfHandOverEndsWithItsEmperor(t *testing.T) {
	w := newWorld(t, native())
	f := w.connect()
	f.write(framed(kindPart, []byte(`{"vassal":`))[:7])
	nettest.Eventually(t, 5*time.Second, "the connection", func() bool {
		n := 0
		w.on(w.r.shards[0], func() { n = len(w.r.peers) })
		return n == 1
	})
	w.newEmperor()
	f.awaitEOF(5 * time.Second)
	w.r.Settle()
	w.on(w.r.shards[0], func() {
		if len(w.r.peers) != 0 {
			t.Errorf("%d peers", len(w.r.peers))
		}
	})
}

func TestQuestionsAreAskedAgain(t *testing.T) {
	asked := make(chan uint64, 8)
	w := newWorld(t, native(), foreignOnly, func(r *Router) {
		r.events.Identify = func(conn uint64, pidfd *os.File) {
			pidfd.Close()
			asked <- conn
		}
	})
	next := func() uint64 {
		t.Helper()
		select {
		case conn := <-asked:
			return conn
		case <-time.After(5 * time.Second):
			t.Fatal("nothing was asked")
			return 0
		}
	}
	f := w.connect()
	f.send(udp(blog, internet, 9))
	first := next() // is not answered
	w.r.Abandon()
	g := w.connect()
	g.send(udp(shop, internet, 9))
	w.r.Succeed(-1, 0)
	w.on(w.r.shards[0], func() {})
	select {
	case <-asked:
		t.Fatal("it was asked before the emperor knew its vassals")
	default:
	}
	w.r.Settle()
	again := []uint64{next(), next()}
	if !slices.Contains(again, first) {
		t.Errorf("asked %v, without %d", again, first)
	}
	for _, conn := range again {
		w.r.Identified(conn, "")
	}
	w.await("registered")
	w.await("registered")
	g.send(udp(shop, internet, 9))
	w.host.Receive(t)
}

func TestStateForTheNextEmperor(t *testing.T) {
	cfg := native()
	w := newWorld(t, cfg)
	var devices []*kept
	for i := range 5 {
		k := keep(t)
		devices = append(devices, k)
		w.give(k, Handover{Vassal: string(rune('a' + i)), Registered: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 1, byte(i)})}})
	}
	before := nettest.OpenFiles(t, os.Getpid())
	networks, err := w.r.Networks()
	if err != nil || len(networks) != 1 {
		t.Fatalf("%+v, %v", networks, err)
	}
	n := networks[0]
	if n.Config.Name != cfg.Name || !slices.Equal(n.Config.Own, cfg.Own) || n.Gateway != -1 {
		t.Errorf("%+v", n)
	}
	if listening, err := unix.GetsockoptInt(n.Listener, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening != 1 {
		t.Errorf("the listener: %d, %v", listening, err)
	}
	n.Close()
	var all []HandedDevice
	for after := uint64(0); ; {
		list, err := w.r.Handed(after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		all, after = append(all, list...), list[len(list)-1].ID
	}
	if len(all) != len(devices) {
		t.Fatalf("%+v", all)
	}
	for i, d := range all {
		if d.Network != cfg.Name || d.Vassal != string(rune('a'+i)) || len(d.Registered) != 1 || !sameFile(d.FD, devices[i].dev.FD()) {
			t.Errorf("%+v", d)
		}
		if sameFile(d.FD, devices[(i+1)%5].dev.FD()) {
			t.Error("two devices are one file")
		}
		unix.Close(d.FD)
	}
	if now := nettest.OpenFiles(t, os.Getpid()); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
}

func TestRemoveNetwork(t *testing.T) {
	w := newWorld(t, native())
	blogs := keep(t)
	life := w.give(blogs, Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	f := w.connect()
	f.send(udp(shop, internet, 9))
	if err := w.r.RemoveNetwork("other"); err == nil {
		t.Error("an unknown network was removed")
	}
	if err := w.r.RemoveNetwork(w.name); err != nil {
		t.Fatal(err)
	}
	<-life.Lost()
	f.awaitEOF(5 * time.Second)
	if s := w.r.Snapshot(); len(s) != 0 {
		t.Errorf("%+v", s)
	}
	device, host := tuntest.Pair(t)
	if err := w.r.AddNetwork(native(), Descriptors{Device: device}); err != nil {
		t.Fatal(err)
	}
	host.Send(t, udp(internet, blog, 9))
	nettest.Eventually(t, 5*time.Second, "the new network reads its device", func() bool {
		return w.r.Snapshot()[0].Drops[DropNoRoute] == 1
	})
}
