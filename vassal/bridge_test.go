package vassal

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

func foreign(addrs ...string) Link {
	l := Link{Device: "u0", Foreign: true, Socket: "/run/another", MTU: 1500, Greeting: Greeting{Credentials: true, UID: 7, GID: 8}}
	for _, a := range addrs {
		p := netip.MustParseAddr(a)
		l.Addresses = append(l.Addresses, netip.PrefixFrom(p, p.BitLen()))
	}
	return l
}

func TestRoutesOfForeignDevices(t *testing.T) {
	by := func(l Link, gateways ...string) Link {
		for _, gw := range gateways {
			l.Gateways = append(l.Gateways, netip.MustParseAddr(gw))
		}
		return l
	}
	second := foreign("10.8.0.7")
	second.Device, second.Gateways = "u1", []netip.Addr{netip.MustParseAddr("10.8.0.1")}
	for name, tc := range map[string]struct {
		links []Link
		v4    string
		v6    string // without the kernel's own
	}{
		"by a gateway":    {[]Link{by(foreign("10.9.0.7", "fd09::7"), "10.9.0.1", "fd09::1")}, "default via 10.9.0.1 dev u0; 10.9.0.1 dev u0 scope link", "fd09::1 dev u0; default via fd09::1 dev u0"},
		"without":         {[]Link{foreign("10.9.0.7", "10.9.0.8")}, "default dev u0 scope link", ""},
		"two devices":     {[]Link{by(foreign("10.9.0.7"), "10.9.0.1"), second}, "default via 10.9.0.1 dev u0; 10.8.0.1 dev u1 scope link; 10.9.0.1 dev u0 scope link", ""},
		"by hooks, later": {[]Link{foreign()}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJail(t, tc.links...)
			ns := &nettest.NS{Handle: j.ns}
			routes := func(family string) string {
				var all []string
				for line := range strings.Lines(ns.Run(t, "ip", family, "route")) {
					line = strings.TrimSpace(strings.Split(strings.TrimSpace(line), " metric")[0])
					if own := strings.HasPrefix(line, "fe80::") || strings.HasPrefix(line, "fd09::7"); !own {
						all = append(all, strings.TrimSuffix(strings.TrimSpace(strings.Split(line, " proto")[0]), " linkdown"))
					}
				}
				return strings.Join(all, "; ")
			}
			if got := routes("-4"); got != tc.v4 {
				t.Errorf("IPv4 routes %q, want %q", got, tc.v4)
			}
			if got := routes("-6"); got != tc.v6 {
				t.Errorf("IPv6 routes %q, want %q", got, tc.v6)
			}
		})
	}
}

func TestJailWithABridge(t *testing.T) {
	nettest.Root(t)
	j := newJail(t, foreign("10.9.0.7"))
	if err := j.Bridge(nil, nil, nil); err == nil || !strings.Contains(err.Error(), "device u0") {
		t.Errorf("without bridges: %v", err)
	}
	no := errors.New("no")
	if err := j.Bridge(func(Bridging) (Bridge, error) { return Bridge{}, no }, nil, nil); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	var asked Bridging
	stopped, changed, trouble, lost := 0, 0, "", ""
	err := j.Bridge(func(b Bridging) (Bridge, error) {
		asked = b
		return Bridge{Stop: func() { stopped++ }, Trouble: func() string { return trouble }}, nil
	}, func() { changed++ }, func(why string) { lost = why })
	if err != nil {
		t.Fatal(err)
	}
	want := tuntap.Greeting{Credentials: true, UID: 7, GID: 8}
	if asked.Vassal != "test" || asked.Socket != "/run/another" || asked.Device.Name != "u0" || asked.Greeting.UID != want.UID || asked.Greeting.GID != want.GID || !asked.Greeting.Credentials {
		t.Errorf("asked for %+v", asked)
	}
	// It takes a packet without a header, and counts what nobody reads.
	ns := &nettest.NS{Handle: j.ns}
	ns.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for range QueueLength + 100 {
			if err := unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 9, 0, 1}}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				t.Fatal(err)
			}
		}
	})
	packet := make([]byte, 1500)
	if n, err := unix.Read(asked.Device.FD(), packet); err != nil || n != 20+8+5 || packet[0] != 0x45 {
		t.Errorf("% x, %v", packet[:max(n, 0)], err)
	}
	if _, tx, full, err := j.Traffic(); err != nil || tx != 33 || full != 100 {
		t.Errorf("sent %d bytes, %d dropped, %v", tx, full, err)
	}
	// The bridge's word about addresses is bounded by what the device has.
	asked.Announced(tuntap.Announcement{Src: netip.MustParseAddr("10.9.9.9")})
	asked.Announced(tuntap.Announcement{Src: netip.MustParseAddr("10.9.0.7")})
	if got := j.Addresses(); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.9.0.7")}) || changed != 2 {
		t.Errorf("addresses %v", got)
	}
	trouble = "it is away"
	if got := j.Troubles(); len(got) != 1 || got[0] != "device u0 has no router at /run/another: it is away" {
		t.Errorf("troubles %q", got)
	}
	if j.Lost() {
		t.Error("lost with a bridge")
	}
	asked.Lost("somebody deleted it")
	if !j.Lost() || lost != "somebody deleted it" {
		t.Errorf("lost %v, told %q", j.Lost(), lost)
	}
	if err := j.Leave(); err != nil || stopped != 1 {
		t.Errorf("stopped %d times, %v", stopped, err)
	}
	if err := j.Close(); err != nil || stopped != 1 {
		t.Errorf("stopped %d times, %v", stopped, err)
	}
}

// A gateway of a foreign router's network that says nothing is an error: nobody else's
// word says that the device works.
func TestForeignGatewayHasToAnswer(t *testing.T) {
	nettest.Root(t)
	l := foreign("10.9.0.7")
	l.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	j := newJail(t, l)
	j.announced(j.links[0], tuntap.Announcement{Src: netip.MustParseAddr("10.9.0.7")})
	done := make(chan error, 1)
	go func() { done <- j.Register(t.Context()) }()
	buf, echoes := make([]byte, 1500), 0
	nettest.Eventually(t, 5*time.Second, "echoes to the gateway", func() bool {
		if n, err := unix.Read(j.links[0].dev.FD(), buf); err == nil && n >= 28 && buf[9] == 1 && buf[20] == 8 {
			echoes++
		}
		return echoes >= 2
	})
	select {
	case err := <-done:
		t.Fatalf("registered: %v", err)
	default:
	}
	// It answers.
	n := 28
	answer := slices.Clone(buf[:n])
	copy(answer[12:16], buf[16:20])
	copy(answer[16:20], buf[12:16])
	answer[20] = 0
	sum := uint32(answer[22])<<8 | uint32(answer[23]) + 8<<8
	sum = sum&0xffff + sum>>16
	answer[22], answer[23] = byte(sum>>8), byte(sum)
	if _, err := unix.Write(j.links[0].dev.FD(), answer); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatAForeignRouterCannotDo(t *testing.T) {
	_, reject, err := firewall.ParseDeviceRule("out any any reject")
	if err != nil {
		t.Fatal(err)
	}
	wide, ruled, ways := foreign("10.9.0.7"), foreign("10.9.0.7"), foreign("10.9.0.7")
	wide.MTU = 8189
	ruled.Rules = []tuntap.DeviceRule{{Rule: reject}}
	ways.Gateways = []netip.Addr{netip.MustParseAddr("fd09::1")}
	for want, l := range map[string]Link{"MTU 8189 is more": wide, "not reject": ruled, "no address of its family": ways} {
		if err := l.CheckForeign(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	good := foreign("10.9.0.7")
	good.MTU = 8188
	if err := good.CheckForeign(); err != nil {
		t.Error(err)
	}
}
