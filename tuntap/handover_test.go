package tuntap

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

func TestGoodbyeFreesTheAddressAtOnce(t *testing.T) {
	w := newWorld(t, native())
	for range 50 { // a jail that is replaced again and again
		_, life := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}, Registered: []netip.Addr{blog}})
		if err := life.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-life.Lost():
		default:
			t.Fatal("the life line is closed and not lost")
		}
		if h := w.await("closed"); h.vassal != "blog" {
			t.Fatalf("closed %+v", h)
		}
	}
}

func TestEmperorsDeathKeepsThePeer(t *testing.T) {
	w := newWorld(t, native())
	end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	life.conn.CloseWrite() // the end without a goodbye, as of a killed process
	<-life.Lost()
	for range 3 {
		end.Send(t, udp(blog, internet, 9))
		w.host.Receive(t)
		w.host.Send(t, udp(internet, blog, 9))
		end.Receive(t)
	}
}

func TestDeviceThatIsGoneEndsThePeer(t *testing.T) {
	w := newWorld(t, native())
	end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	end.Close()
	select {
	case <-life.Lost():
	case <-time.After(5 * time.Second):
		t.Fatal("the life line does not say so")
	}
	if h := w.await("closed"); !errors.Is(h.err, errDeviceGone) {
		t.Errorf("closed: %v", h.err)
	}
}

func TestRegistrationsAreGivenBackBeforeAnybodyCanClaimThem(t *testing.T) {
	w := newWorld(t, native(), func(r *Router) { r.serving = false })
	_ = w.r.shards[0].mail.do(func() error { w.r.serving = false; w.r.shards[0].poll.want(w.r.networks[0].host, 0); return nil })
	end, _ := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog, blog6}})
	thief, _ := w.handOver(Handover{Vassal: "shop"})
	thief.Send(t, udp(blog, internet, 9))
	w.host.Send(t, udp(internet, blog, 9))
	foreign := w.connect()
	foreign.send(udp(blog, internet, 9))
	w.dropped("", DropNotReady, 1)
	if !w.host.Empty() || !end.Empty() {
		t.Fatal("a packet passed before Serve")
	}
	w.r.Serve()
	end.Receive(t) // waited in the device
	if h := w.await("refused"); h.why != DropTaken || h.holder != "blog" || h.addr != blog {
		t.Errorf("refused %+v", h)
	}
}

func TestNewerHandOverDoesNotSteal(t *testing.T) {
	w := newWorld(t, native())
	old := w.vassal("blog", blog)
	_, _, err := w.tryHandOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
	if err == nil || !strings.Contains(err.Error(), "10.9.0.7 can not be given back: taken (vassal blog)") {
		t.Errorf("hand-over: %v", err)
	}
	newer, _ := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	newer.Send(t, udp(blog, internet, 9))
	if h := w.await("refused"); h.why != DropTaken {
		t.Errorf("refused %+v", h)
	}
	old.Send(t, udp(blog, internet, 9))
	if !w.hostGotOnly(blog) {
		t.Error("the holder was disturbed")
	}
}

func TestLongHandOver(t *testing.T) {
	w := newWorld(t, native())
	h := Handover{Vassal: "blog", Registered: []netip.Addr{blog}}
	for i := range 1000 {
		h.Rules = append(h.Rules, DeviceRule{Direction: firewall.Out, Rule: firewall.Rule{
			Action: firewall.Deny, Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 32), File: "vassals/blog.ini", Line: i,
		}})
	}
	end, _ := w.handOver(h)
	end.Send(t, udp(blog, netip.MustParseAddr("203.0.3.231"), 9)) // the last rule's
	w.dropped("blog", DropRule, 1)
	end.Send(t, udp(blog, netip.MustParseAddr("203.0.3.232"), 9))
	w.host.Receive(t)

	for len(h.Rules) < 20000 {
		h.Rules = append(h.Rules, h.Rules...)
	}
	if _, _, err := w.tryHandOver(h); err == nil || !strings.Contains(err.Error(), "fewer rules") {
		t.Errorf("an endless hand-over: %v", err)
	}
}

func TestRefusedHandOvers(t *testing.T) {
	for _, c := range []struct {
		name string
		tune func(*Router)
		hand Handover
		want string
	}{
		{"nameless", nil, Handover{}, "names its vassal"},
		{"no tun", func(r *Router) { r.prepare = prepareTun }, Handover{Vassal: "blog"}, "no attached tun device"},
		{"forbidden address", nil, Handover{Vassal: "blog", Registered: []netip.Addr{gateway}}, "10.9.0.1 can not be given back: forbidden"},
		{"direction", nil, Handover{Vassal: "blog", Rules: []DeviceRule{{Direction: 9}}}, "direction"},
		{"a route in", nil, Handover{Vassal: "blog", Rules: []DeviceRule{{Direction: firewall.In, Target: far}}}, "only packets on their way out"},
		{"a route without a gateway", nil, Handover{Vassal: "blog", Rules: []DeviceRule{{Target: far}}}, "network fief0 has no gateway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, native())
			if c.tune != nil {
				_ = w.r.shards[0].mail.do(func() error { c.tune(w.r); return nil })
			}
			if _, _, err := w.tryHandOver(c.hand); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("hand-over: %v; want %q", err, c.want)
			}
			if n := len(w.r.Snapshot()[0].Peers); n != 0 {
				t.Errorf("%d peers are left", n)
			}
		})
	}
}

func TestOnlyTheEmperorHandsOver(t *testing.T) {
	w := newWorld(t, native(), foreignOnly)
	if _, _, err := w.tryHandOver(Handover{Vassal: "blog"}); err == nil {
		t.Fatal("a hand-over of somebody else was accepted")
	}
	if h := w.await("closed"); !errors.Is(h.err, errDescriptors) {
		t.Errorf("closed: %v", h.err)
	}
	// Without a descriptor, its frames are data as in uWSGI.
	f := w.connect()
	f.write(framed(kindHand, udp(blog, internet, 9)))
	if h := w.await("registered"); h.addr != blog {
		t.Errorf("registered %v", h.addr)
	}
}

func TestHandOverWithTwoDescriptors(t *testing.T) {
	for _, count := range []int{0, 2, 200} {
		w := newWorld(t, native())
		f := w.connect()
		file, _ := tuntest.Pair(t)
		fds := make([]int, count)
		for i := range fds {
			fds[i] = int(file.Fd())
		}
		frames, err := Handover{Vassal: "blog"}.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.conn.WriteMsgUnix(frames, unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		f.awaitEOF(5 * time.Second)
		file.Close()
	}
}

func TestIdentity(t *testing.T) {
	cfg := native()
	cfg.Reserved = map[netip.Addr]string{blog: "blog"}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	_, _ = unix.Close(pair[0]), unix.Close(pair[1])
	if err != nil {
		nettest.NotHere(t, "the kernel has no SO_PEERPIDFD: %v", err)
	}
	_ = unix.Close(pidfd)
	asked := make(chan uint64, 8)
	w := newWorld(t, cfg, foreignOnly, func(r *Router) {
		r.events.Identify = func(conn uint64, pidfd *os.File) {
			pidfd.Close()
			asked <- conn
		}
	})
	f := w.connect()
	f.send(udp(blog, internet, 9))
	var conn uint64
	select {
	case conn = <-asked:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody is asked whose it is")
	}
	if !w.host.Empty() {
		t.Fatal("a packet passed before it was known whose it is")
	}
	w.r.Identified(conn, "blog")
	if h := w.await("registered"); h.addr != blog || h.vassal != "blog" {
		t.Errorf("registered %+v", h)
	}

	g := w.connect()
	w.r.Identified(<-asked, "")
	g.send(udp(shop, internet, 9))
	if h := w.await("registered"); h.addr != shop || h.vassal != "" {
		t.Errorf("registered %+v", h)
	}

	waiting := w.connect() // gone before the answer
	late := <-asked
	waiting.conn.Close()
	w.await("closed")
	w.r.Identified(late, "blog")
}

func TestHandOverToNobody(t *testing.T) {
	file, _ := tuntest.Pair(t)
	dev, err := NewDevice("eth0", file)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	_, err = HandOver(t.TempDir()+"/none.sock", dev, Handover{Vassal: "blog"})
	if err == nil || !strings.Contains(err.Error(), `hand device "eth0" of vassal "blog"`) {
		t.Errorf("error %v", err)
	}
}

func TestRouterThatDiesIsSeenOnTheLifeline(t *testing.T) {
	w := newWorld(t, native())
	_, life := w.handOver(Handover{Vassal: "blog"})
	w.stop()
	select {
	case <-life.Lost():
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was seen")
	}
	if err := w.r.Update(native()); !errors.Is(err, ErrClosed) {
		t.Errorf("update of an ended router: %v", err)
	}
	w.r.Identified(1, "x")
	w.r.Serve()
}

func TestUpdate(t *testing.T) {
	w := newWorld(t, native())
	end := w.vassal("blog", blog)
	cfg := native()
	cfg.Out = []firewall.Rule{{Action: firewall.Deny, Dst: single(internet)}}
	if err := w.r.Update(cfg); err != nil {
		t.Fatal(err)
	}
	end.Send(t, udp(blog, internet, 9))
	w.dropped("blog", DropRule, 1)
	cfg.Own = append(cfg.Own, blog) // somebody gave it to the device
	if err := w.r.Update(cfg); err != nil {
		t.Fatal(err)
	}
	end.Send(t, udp(blog, gateway, 9))
	w.dropped("blog", DropForbidden, 1)
	if got := w.stats("blog").Addresses; len(got) != 0 {
		t.Errorf("still registered: %v", got)
	}
	if err := w.r.Update(NetworkConfig{Name: "other"}); err == nil {
		t.Error("an unknown network was updated")
	}
	if err := w.r.AddNetwork(native(), Descriptors{}); err == nil {
		t.Error("a network without a device was added")
	}
	device, _ := tuntest.Pair(t)
	if err := w.r.AddNetwork(native(), Descriptors{Device: device}); err == nil {
		t.Error("two networks of one name")
	}
}

func TestHostDeviceThatIsGone(t *testing.T) {
	w := newWorld(t, native())
	a, b := w.vassal("blog", blog), w.vassal("shop", shop)
	w.host.Close()
	nettest.Eventually(t, 5*time.Second, "the loss to be noticed", func() bool {
		a.Send(t, udp(blog, internet, 9))
		return w.stats("blog").Drops[DropNotReady] > 0
	})
	a.Send(t, udp(blog, shop, 9))
	b.Receive(t)
}

func TestRunTwice(t *testing.T) {
	w := newWorld(t, native())
	w.vassal("blog", blog) // it runs by now
	if err := w.r.Run(context.Background()); err == nil {
		t.Error("it runs twice")
	}
}

// A listener without descriptors to accept with must not make the loop spin.
func TestAcceptWithoutDescriptorsDoesNotSpin(t *testing.T) {
	w := newWorld(t, native(), foreignOnly)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(conn) })
	// The lowest free descriptor is the limit: no other can be made.
	low := before
	low.Cur = uint64(conn) + 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }
	defer restore()
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: w.socket}); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 5*time.Second, "the listener to pause", func() bool {
		paused := false
		_ = w.r.shards[0].mail.do(func() error { paused = len(w.r.paused) > 0; return nil })
		return paused
	})
	for began := time.Now(); time.Since(began) < tickMillis*time.Millisecond/2; {
		_ = w.r.shards[0].mail.do(func() error {
			if len(w.r.paused) == 0 {
				t.Error("the listener does not rest between two turns")
			}
			return nil
		})
	}
	restore()
	if _, err := unix.Write(conn, framed(kindData, udp(blog, internet, 9))); err != nil {
		t.Fatal(err)
	}
	w.await("registered")
}
