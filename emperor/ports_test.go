package emperor

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

func published(t *testing.T, lines ...string) *vassal.Config {
	t.Helper()
	c := &vassal.Config{Name: "blog", File: "blog.ini"}
	for _, line := range lines {
		p, err := vassal.ParsePublish(line)
		if err != nil {
			t.Fatal(err)
		}
		c.Publish = append(c.Publish, p)
	}
	return c
}

func TestPublishedByTheFamiliesOfTheVassal(t *testing.T) {
	four := vassal.Link{Device: "eth0", Network: "fief0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/16")}}
	six := vassal.Link{Device: "eth0", Network: "fief0", Addresses: []netip.Prefix{netip.MustParsePrefix("fd77::7/64")}}
	both := vassal.Link{Device: "eth0", Network: "fief0", Addresses: append(slices.Clone(four.Addresses), six.Addresses...)}
	foreign := vassal.Link{Device: "eth0", Foreign: true, Addresses: four.Addresses}
	for _, c := range []struct {
		line  string
		link  vassal.Link
		list  string
		ports string
		bad   string
	}{
		{"8080:80", both, "0.0.0.0:8080-8080>10.9.0.7:80 [::]:8080-8080>[fd77::7]:80", "{[::] both 8080}", ""},
		{"8080:80", four, "0.0.0.0:8080-8080>10.9.0.7:80", "{0.0.0.0 8080}", ""},
		{"8080:80", six, "[::]:8080-8080>[fd77::7]:80", "{[::] 8080}", ""},
		{"0.0.0.0:8080:80", both, "0.0.0.0:8080-8080>10.9.0.7:80", "{0.0.0.0 8080}", ""},
		{"[::1]:8080:80", both, "[::1]:8080-8080>[fd77::7]:80", "{[::1] 8080}", ""},
		{"80-82:90-92", four, "0.0.0.0:80-82>10.9.0.7:90", "{0.0.0.0 80} {0.0.0.0 81} {0.0.0.0 82}", ""},
		{"8080:80 from 203.0.113.0/24", both, "0.0.0.0:8080-8080>10.9.0.7:80", "{0.0.0.0 8080}", ""}, // nobody by IPv6
		{"[::]:8080:80", four, "", "", "no address of that family, only 10.9.0.7"},
		{"8080:80 from 2001:db8::/32", four, "", "", "no address of that family"},
		{"8080:80", foreign, "", "", "tuntap-device-address = auto"},
		{"8080:80", vassal.Link{Device: "eth0", Network: "fief0"}, "", "", "tuntap-device-address = auto"},
	} {
		list, want, bad := publishedBy(published(t, c.line), []vassal.Link{c.link})
		if bad != nil {
			if c.bad == "" || !strings.Contains(bad.Message, c.bad) {
				t.Errorf("%s: %s; want %q", c.line, bad.Message, c.bad)
			}
			continue
		}
		var got, ports []string
		for _, p := range list {
			got = append(got, fmt.Sprintf("%s-%d>%s", netip.AddrPortFrom(p.Host, p.First), p.Last, p.To))
		}
		for _, h := range want {
			at := h.Addr.String()
			if h.Addr.Is6() {
				at = "[" + at + "]"
			}
			if h.Both {
				at += " both"
			}
			ports = append(ports, fmt.Sprintf("{%s %d}", at, h.Port))
		}
		if strings.Join(got, " ") != c.list || strings.Join(ports, " ") != c.ports || c.bad != "" {
			t.Errorf("%s: %q, %q; want %q, %q, %q", c.line, got, ports, c.list, c.ports, c.bad)
		}
	}
}

func TestPublishWithoutANetworkOfItsOwn(t *testing.T) {
	for network, want := range map[string]string{vassal.HostNetwork: "network = host (blog.ini:3)", vassal.NoNetwork: "network = none (blog.ini:3)"} {
		c := published(t, "8080:80")
		c.Network, c.NetworkPos = network, ini.Pos{File: "blog.ini", Line: 3}
		if _, _, bad := publishedBy(c, nil); bad == nil || !strings.Contains(bad.Message, want) || !strings.Contains(bad.Message, "leave one of them out") {
			t.Errorf("%s: %v", network, bad)
		}
	}
}

func TestClaimsOfPorts(t *testing.T) {
	var claims Claims
	blog, shop := published(t, "8080:80", "53:53/udp"), published(t, "127.0.0.1:8080:81")
	blog.Publish[0].Pos.File, blog.Publish[0].Pos.Line = "blog.ini", 4
	shop.Name = "shop"
	shop.Publish[0].Pos.File, shop.Publish[0].Pos.Line = "shop.ini", 2
	if errs := claims.Add(blog); errs.Failed() {
		t.Fatal(errs)
	}
	if errs := claims.Add(blog); errs.Failed() {
		t.Error("its own are in its way", errs)
	}
	const want = "shop.ini:2: port 127.0.0.1:8080/tcp is already published by blog.ini:4"
	if errs := claims.Add(shop); errs.Error() != want {
		t.Errorf("%v; want %s", errs, want)
	}
	claims.Remove("blog")
	if errs := claims.Add(shop); errs.Failed() {
		t.Error(errs)
	}
}

// within runs the rest of a test in a network namespace of its own.
func within(t *testing.T, do func()) {
	t.Helper()
	nettest.Root(t)
	nettest.NewNS(t).Do(t, do)
}

func TestAPortIsHeld(t *testing.T) {
	within(t, func() {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			h := hostPort{Addr: netip.IPv6Unspecified(), Both: true, Proto: proto, Port: 8080}
			f, err := bindPort(h)
			if err != nil {
				t.Fatal(err)
			}
			for _, other := range []hostPort{
				h,
				{Addr: netip.IPv4Unspecified(), Proto: proto, Port: 8080},
				{Addr: netip.MustParseAddr("127.0.0.1"), Proto: proto, Port: 8080},
				{Addr: netip.IPv6Loopback(), Proto: proto, Port: 8080},
			} {
				if g, err := bindPort(other); !errors.Is(err, unix.EADDRINUSE) {
					_ = g.Close()
					t.Errorf("%s beside %s: %v", other, h, err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			again, err := bindPort(h)
			if err != nil {
				t.Fatal("given back, and not free:", err)
			}
			_ = again.Close()
		}
		// Who comes to it is refused, and does not wait.
		f, err := bindPort(hostPort{Addr: netip.IPv4Unspecified(), Proto: unix.IPPROTO_TCP, Port: 8081})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if c, err := net.DialTimeout("tcp4", "127.0.0.1:8081", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%v, %v", c, err)
		}
		if _, err := bindPort(hostPort{Addr: netip.MustParseAddr("198.51.100.77"), Proto: unix.IPPROTO_TCP, Port: 1}); err == nil ||
			!strings.Contains(err.Error(), "the host does not have the address 198.51.100.77") {
			t.Error(err)
		}
	})
}

func TestAPortIsTakenAfterItsConnections(t *testing.T) {
	within(t, func() {
		l, err := net.Listen("tcp4", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close() // first: the listener's side keeps the TIME_WAIT
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
		_ = l.Close()
		f, err := bindPort(hostPort{Addr: netip.IPv4Unspecified(), Proto: unix.IPPROTO_TCP, Port: 8080})
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	})
}

func TestWhoHasAPortIsNamed(t *testing.T) {
	within(t, func() {
		base := t.TempDir()
		e := &Emperor{Instance: &Instance{Name: "one", Runtime: base + "/one"}, Log: slog.New(slog.DiscardHandler)}
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		u, err := net.ListenPacket("udp4", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		pid := os.Getpid()
		any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
		for _, c := range []struct {
			port hostPort
			want string
		}{
			{hostPort{Addr: any6, Both: true, Proto: unix.IPPROTO_TCP, Port: 8080}, fmt.Sprintf("emperor.test (pid %d, listens at [::]:8080)", pid)},
			{hostPort{Addr: any4, Proto: unix.IPPROTO_TCP, Port: 8080}, fmt.Sprintf("emperor.test (pid %d, listens at [::]:8080)", pid)},
			{hostPort{Addr: any4, Proto: unix.IPPROTO_UDP, Port: 53}, fmt.Sprintf("emperor.test (pid %d, listens at 127.0.0.1:53)", pid)},
			{hostPort{Addr: any4, Proto: unix.IPPROTO_TCP, Port: 53}, ""},
		} {
			if got := e.holderOf(c.port); got != c.want {
				t.Errorf("%s: %q; want %q", c.port, got, c.want)
			}
		}
		// Another instance of ours holds what it publishes without listening.
		if err := os.Mkdir(base+"/two", 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, base+"/two/lock", fmt.Sprintf("%d\n", pid))
		f, err := bindPort(hostPort{Addr: any4, Proto: unix.IPPROTO_TCP, Port: 9000})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want := fmt.Sprintf(`instance "two" of fiefdom (pid %d)`, pid)
		if got := e.holderOf(hostPort{Addr: any4, Proto: unix.IPPROTO_TCP, Port: 9000}); got != want {
			t.Errorf("%q; want %q", got, want)
		}
		// So does the responder, at the router's addresses.
		if err := os.Rename(base+"/two/lock", base+"/two/"+responderRecord); err != nil {
			t.Fatal(err)
		}
		want = fmt.Sprintf(`the responder of instance "two" of fiefdom (pid %d, `, pid)
		if got := e.holderOf(hostPort{Addr: any4, Proto: unix.IPPROTO_TCP, Port: 8080}); !strings.HasPrefix(got, want) {
			t.Errorf("%q; want %q", got, want)
		}
	})
}

// TestManyWishesAreGrantedTogether: who comes while the host is being changed
// waits for one further change, whoever else comes meanwhile.
func TestManyWishesAreGrantedTogether(t *testing.T) {
	var p publications
	p.of = map[string]*publication{}
	changes, most := 0, 0
	begun, goOn := make(chan struct{}, 1), make(chan struct{})
	put := func(all []Published) error {
		if changes++; changes == 1 {
			begun <- struct{}{}
			<-goOn
		}
		most = max(most, len(all))
		return nil
	}
	wish := func(i int) {
		p.mu.Lock()
		p.of[fmt.Sprint("v", i)] = &publication{list: []Published{{First: uint16(i)}}}
		p.mu.Unlock()
	}
	var wg sync.WaitGroup
	wish(0)
	wg.Go(func() { _ = p.settle(put) })
	<-begun
	for i := range 100 {
		wish(i + 1)
		wg.Go(func() {
			if err := p.settle(put); err != nil {
				t.Error(err)
			}
		})
	}
	nettest.Eventually(t, 10*time.Second, "all to wait", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.wishes == 101
	})
	close(goOn)
	wg.Wait()
	if changes != 2 || most != 101 {
		t.Errorf("%d changes, the largest of %d", changes, most)
	}
}
