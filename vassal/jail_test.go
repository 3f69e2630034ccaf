package vassal

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fiefdom/internal/nettest"
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
