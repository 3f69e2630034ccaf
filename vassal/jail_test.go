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

var (
	router4, router6 = netip.MustParsePrefix("10.9.0.1/16"), netip.MustParsePrefix("fd09::1/64")
	vassal4, vassal6 = netip.MustParsePrefix("10.9.0.7/16"), netip.MustParsePrefix("fd09::7/64")
)

// native is a link as the emperor resolves one.
func native(network, socket string, addrs ...netip.Prefix) Link {
	l := Link{Device: "eth0", Network: network, Socket: socket, Addresses: addrs, MTU: 1500}
	for _, a := range addrs {
		gw := router4.Addr()
		if a.Addr().Is6() {
			gw = router6.Addr()
		}
		l.Gateways = append(l.Gateways, gw)
	}
	return l
}

func inJail(t *testing.T, j *Jail, fn func() error) {
	t.Helper()
	if err := j.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func TestJailIsFurnished(t *testing.T) {
	j := newJail(t, native("", "", vassal4, vassal6), Link{Device: "plain", MTU: 1500})
	read := func(name string) string {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			t.Error(err)
		}
		return strings.Join(strings.Fields(string(b)), " ")
	}
	inJail(t, j, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a := eth0.Attrs()
		if a.Flags&net.FlagUp == 0 || a.MTU != 1500 || a.TxQLen != QueueLength || eth0.Type() != "tuntap" {
			t.Errorf("eth0: %v, mtu %d, queue %d, %s", a.Flags, a.MTU, a.TxQLen, eth0.Type())
		}
		addrs, err := netlink.AddrList(eth0, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		var got []string
		for _, a := range addrs {
			got = append(got, a.IPNet.String())
		}
		slices.Sort(got)
		if want := []string{vassal4.String(), vassal6.String()}; !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v: no link-local, nothing else", got, want)
		}
		for family, gw := range map[int]netip.Addr{netlink.FAMILY_V4: router4.Addr(), netlink.FAMILY_V6: router6.Addr()} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_DST)
			if err != nil || len(routes) != 1 || routes[0].Gw.String() != gw.String() {
				t.Errorf("default routes %v, %v", routes, err)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil || lo.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("lo: %v, %v", lo, err)
		}
		plain, err := netlink.LinkByName("plain")
		if err != nil || plain.Attrs().Flags&net.FlagUp != 0 {
			t.Errorf("a device for hooks: %v, %v", plain, err)
		}
		for name, want := range map[string]string{
			"ipv4/ip_unprivileged_port_start": "0", "ipv4/ping_group_range": "0 2147483647",
			"ipv6/conf/eth0/accept_ra": "0", "ipv6/conf/eth0/accept_redirects": "0", "ipv6/conf/eth0/addr_gen_mode": "1",
		} {
			if got := read(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		return nil
	})
}

func TestJailWithoutIPv6HasNone(t *testing.T) {
	j := newJail(t, native("", "", vassal4))
	inJail(t, j, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if got := strings.TrimSpace(string(b)); got != "1" {
			t.Errorf("disable_ipv6 is %q", got)
		}
		return err
	})
}

// The first device has the default route; the second's would only be refused.
func TestJailWithTwoNativeDevices(t *testing.T) {
	second := native("", "", netip.MustParsePrefix("10.8.0.7/16"))
	second.Device, second.Gateways = "eth1", []netip.Addr{netip.MustParseAddr("10.8.0.1")}
	j := newJail(t, native("", "", vassal4), second)
	inJail(t, j, func() error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_DST)
		if err != nil || len(routes) != 1 || routes[0].Gw.String() != router4.Addr().String() {
			t.Errorf("default routes %v, %v", routes, err)
		}
		return err
	})
}

func TestJailThatCannotBeMade(t *testing.T) {
	nettest.Root(t)
	nettest.NoLeaks(t)
	unreachable := native("", "", vassal4)
	unreachable.Gateways = []netip.Addr{netip.MustParseAddr("172.16.0.1")}
	bigMTU := native("", "", vassal4)
	bigMTU.MTU = 1 << 20
	for name, links := range map[string][]Link{
		"no device name":      {{Device: ""}},
		"device twice":        {{Device: "eth0", MTU: 1500}, {Device: "eth0", MTU: 1500}},
		"loopback":            {{Device: "lo"}},
		"gateway unreachable": {unreachable},
		"mtu":                 {bigMTU},
		"address twice":       {native("", "", vassal4, vassal4)},
	} {
		t.Run(name, func(t *testing.T) {
			if j, err := NewJail("test", true, links); err == nil {
				t.Error("it was made", j.Close())
			}
		})
	}
}

func TestJailOfTheEmperorsNamespace(t *testing.T) {
	j, err := NewJail("test", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if j.Inode != 0 || j.Lost() || len(j.Addresses()) != 0 {
		t.Errorf("%+v", j)
	}
	if err := errors.Join(j.HandOver(), j.Close()); err != nil {
		t.Error(err)
	}
}

func TestJailsComeAndGo(t *testing.T) {
	nettest.Root(t)
	if j, err := NewJail("test", true, []Link{native("", "", vassal4)}); err != nil || j.Close() != nil {
		t.Fatal(err)
	}
	nettest.NoLeaks(t)
	threads := func() int {
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	namespaces := func() int {
		links, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, l := range links {
			if target, err := os.Readlink(l); err == nil {
				seen[target] = true
			}
		}
		return len(seen)
	}
	before := threads()
	for range 100 {
		j, err := NewJail("test", true, []Link{native("", "", vassal4, vassal6)})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := threads(); after > before+20 {
		t.Errorf("%d threads before, %d after", before, after)
	}
	nettest.Eventually(t, 5*time.Second, "one network namespace of this process's threads", func() bool { return namespaces() == 1 })
}

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
	nettest.Eventually(t, 5*time.Second, "both addresses registered", has)
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
	nat := &link{Link: native("tun0", "", vassal4), ready: make(chan struct{})}
	hooked := &link{Link: Link{Device: "u0", Network: "tun1"}, ready: make(chan struct{})}
	hooked.setReady()
	j := &Jail{Name: "test", links: []*link{nat, hooked}}
	j.Registered("tun0", netip.MustParseAddr("10.9.9.9"))
	if got := j.Addresses(); len(got) != 0 {
		t.Errorf("an address that the device does not have: %v", got)
	}
	for range 3 {
		j.Registered("tun0", vassal4.Addr())
	}
	select {
	case <-nat.ready:
	default:
		t.Error("not ready with all addresses")
	}
	for i := range 1000 {
		j.Registered("tun1", netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}))
	}
	if n := len(j.Addresses()); n > maxAddresses+1 {
		t.Errorf("%d addresses", n)
	}
	j.Registered("no-network", vassal4.Addr())
}
