package vassal

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

// rig is a router in this process, with a device in a namespace that stands
// for the host.
type rig struct {
	*tuntap.Router
	socket   string
	listener *os.File
	device   *os.File
	events   tuntap.Events
}

// newRig makes a host and a router for one jail, whose registrations go to it.
func newRig(t *testing.T, jail func() *Jail) *rig {
	t.Helper()
	host := nettest.NewNS(t)
	r := &rig{socket: filepath.Join(t.TempDir(), "s")}
	host.Do(t, func() {
		dev, err := tuntap.OpenDevice("tun0")
		if err != nil {
			t.Fatal(err)
		}
		r.device = os.NewFile(uintptr(dev.FD()), "tun0")
		link, err := netlink.LinkByName("tun0")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Prefix{router4, router6} {
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}); err != nil {
				t.Fatal(err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.device.Close() })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if r.listener, err = l.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listener.Close() })
	r.events = tuntap.Events{Registered: func(network, name string, addr netip.Addr) {
		if j := jail(); j != nil && name == j.Name {
			j.Registered(network, addr)
		}
	}}
	return r
}

// serve runs a router on the rig until the function that it returns is called.
func (r *rig) serve(t *testing.T) (stop func()) {
	t.Helper()
	router, err := tuntap.New(slog.New(slog.NewTextHandler(t.Output(), nil)), r.events, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	r.Router = router
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := router.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	err = router.AddNetwork(tuntap.NetworkConfig{
		Name: "tun0", Pool: []netip.Prefix{router4.Masked(), router6.Masked()}, Own: []netip.Addr{router4.Addr(), router6.Addr()}, Isolate: true,
	}, tuntap.Descriptors{Device: duplicate(t, r.device), Listener: duplicate(t, r.listener)})
	if err != nil {
		t.Fatal(err)
	}
	router.Serve()
	return stop
}

func duplicate(t *testing.T, f *os.File) *os.File {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var dup int
	if cerr := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return os.NewFile(uintptr(dup), f.Name())
}

func TestJailRegistersAndSurvivesItsRouter(t *testing.T) {
	nettest.Root(t)
	var j *Jail
	var mu sync.Mutex
	r := newRig(t, func() *Jail { mu.Lock(); defer mu.Unlock(); return j })
	stop := r.serve(t)
	made := newJail(t, native("tun0", r.socket, vassal4, vassal6))
	mu.Lock()
	j = made
	mu.Unlock()
	if !j.Lost() {
		t.Error("not handed over, and not lost")
	}
	if err := j.HandOver(); err != nil {
		t.Fatal(err)
	}
	if err := j.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{vassal4.Addr(), vassal6.Addr()}
	has := func() bool {
		got := j.Addresses()
		slices.SortFunc(got, netip.Addr.Compare)
		return slices.Equal(got, want)
	}
	if !has() {
		t.Errorf("registered %v, want %v", j.Addresses(), want)
	}
	if j.Lost() {
		t.Error("lost while its router serves it")
	}
	stop()
	nettest.Eventually(t, 5*time.Second, "the loss is noticed", j.Lost)
	r.serve(t)
	if err := j.HandOver(); err != nil {
		t.Fatal(err)
	}
	registered := func() []string {
		var all []string
		for _, p := range r.Snapshot()[0].Peers {
			for _, a := range p.Addresses {
				all = append(all, a.String())
			}
		}
		return all
	}
	if got := registered(); len(got) != 2 {
		t.Errorf("the new router knows %v without a packet", got)
	}
	if err := j.Leave(); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 5*time.Second, "the router shows no peer", func() bool { return len(r.Snapshot()[0].Peers) == 0 })
	if err := j.HandOver(); err != nil || len(r.Snapshot()[0].Peers) != 0 {
		t.Errorf("a jail that has left was handed over again: %v", err)
	}
}

// The router's word takes another way than the gateway's answer, and may be late.
func TestRegisterWaitsForTheRoutersWord(t *testing.T) {
	nettest.Root(t)
	r := newRig(t, func() *Jail { return nil })
	j := newJail(t, native("tun0", r.socket, vassal4, vassal6))
	var words sync.WaitGroup
	t.Cleanup(words.Wait)
	r.events.Registered = func(network, _ string, addr netip.Addr) {
		words.Go(func() {
			<-time.After(5 * registerGrace)
			j.Registered(network, addr)
		})
	}
	r.serve(t)
	if err := j.HandOver(); err != nil {
		t.Fatal(err)
	}
	if err := j.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := j.Addresses(); len(got) != 2 {
		t.Errorf("registered %v, want both", got)
	}
}

func TestRegisterWithoutRouterFails(t *testing.T) {
	nettest.Root(t)
	j := newJail(t, native("", "", vassal4))
	nettest.NoLeaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	err := j.Register(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "register 10.9.0.7") {
		t.Errorf("got %v", err)
	}
}

// The emperor's loop asks for addresses while a router is slow to answer.
func TestSlowRouterBlocksNobody(t *testing.T) {
	nettest.Root(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	j := newJail(t, native("tun0", socket, vassal4))
	done := make(chan error)
	go func() { done <- j.HandOver() }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	j.Registered("tun0", vassal4.Addr())
	if got := j.Addresses(); len(got) != 1 || !j.Lost() {
		t.Errorf("%v, lost %v", got, j.Lost())
	}
	conn.Close()
	l.Close()
	if err := <-done; err == nil {
		t.Error("handed over to nobody")
	}
}

func TestHandOverWithoutRouterFails(t *testing.T) {
	nettest.Root(t)
	j := newJail(t, native("tun0", filepath.Join(t.TempDir(), "nobody"), vassal4))
	if err := j.HandOver(); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
	if !j.Lost() {
		t.Error("a device without a router is not lost")
	}
}

// TestRegisteredIsOnlyTheRoutersWord lets a router say what it should not.
func TestRegisteredIsOnlyTheRoutersWord(t *testing.T) {
	nat := &link{Link: native("tun0", "", vassal4)}
	hooked := &link{Link: Link{Device: "u0", Network: "tun1"}}
	j := &Jail{Name: "test", links: []*link{nat, hooked}}
	j.Registered("tun0", netip.MustParseAddr("10.9.9.9"))
	if got := j.Addresses(); len(got) != 0 {
		t.Errorf("an address that the device does not have: %v", got)
	}
	for range 3 {
		j.Registered("tun0", vassal4.Addr())
	}
	if got := j.Addresses(); len(got) != 1 || got[0] != vassal4.Addr() {
		t.Errorf("registered %v", got)
	}
	for i := range 1000 {
		j.Registered("tun1", netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}))
	}
	if n := len(j.Addresses()); n > maxAddresses+1 {
		t.Errorf("%d addresses", n)
	}
	j.Registered("no-network", vassal4.Addr())
}
