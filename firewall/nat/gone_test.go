package nat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// A bridge that somebody else takes away with vassals in it is their loss: other
// vassals come, publish and go as before.
func TestPublishOfADeviceThatIsGone(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	lost := ofStranger(both(port("0.0.0.0", 8081, 8081, stranger4+":8000"), port("::", 8081, 8081, "["+stranger6+"]:8000"))...)
	publish(t, w.host, h, lost...)
	w.host.Run(t, "ip", "link", "del", "fief1")
	apply(t, w.host, h, networks()...)
	publish(t, w.host, h, append(everywhere(), lost...)...)
	wantAnswer(t, w.inet, host4+":8080", inet4)
	wantAnswer(t, w.host, "127.0.0.1:8080", gate4)
	wantAnswer(t, w.host, "[::1]:8080", gate6)
	publish(t, w.host, h, lost...)
	wantAnswer(t, w.inet, host4+":8080", "")
	publish(t, w.host, h)
	publish(t, w.host, h, append(everywhere(), lost...)...)
	wantAnswer(t, w.inet, host4+":8080", inet4)
}

// The end of an instance that was killed takes back what it did for the loopback,
// also by a device that is not its own.
func TestLoopbackOfADeadInstance(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	dir := t.TempDir()
	h := newHost(t, w.host, "test", dir)
	apply(t, w.host, h, networks()...)
	publish(t, w.host, h, everywhere()...)
	route := func() string { return w.host.Run(t, "ip", "-6", "route", "show", "table", "local", "::1") }
	if !strings.Contains(route(), "fief0") {
		t.Fatalf("no route:\n%s", route())
	}
	remove(t, w.host, newHost(t, w.host, "test", dir))
	if got := route(); strings.Contains(got, "fief0") {
		t.Errorf("the route is still there:\n%s", got)
	}
	if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet"); got != "0" {
		t.Errorf("route_localnet is %s", got)
	}
}

// A network of IPv4 alone does not need what a kernel lacks for IPv6.
func TestLegacyWithoutNATOfIPv6(t *testing.T) {
	useLegacy(t)
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	n := network()
	n.Pool, n.Gateways = n.Pool[:1], nil
	apply(t, s.host, h, n)
	s.host.Do(t, func() {
		if err := h.Publish(nil); err != nil {
			t.Error(err)
		}
	})
	if got := s.host.Run(t, "cat", "/proc/net/ip6_tables_names"); got != "" {
		t.Errorf("tables of IPv6: %q", got)
	}
}

// Devices of others that come and go all the time, as containers' do, are in
// nobody's way, and nothing is noted of those that are gone.
func TestDevicesThatComeAndGo(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	serve(t, w.pool, 8000)
	dir := t.TempDir()
	h := newHost(t, w.host, "test", dir)
	apply(t, w.host, h, networks()...)
	var churn sync.WaitGroup
	stop := make(chan struct{})
	churn.Go(func() {
		w.host.Do(t, func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				attrs := netlink.NewLinkAttrs()
				attrs.Name = fmt.Sprintf("guest%d", i)
				guest := netlink.NewVeth(attrs)
				guest.PeerName = attrs.Name + "peer"
				if err := errors.Join(netlink.LinkAdd(guest), netlink.LinkSetUp(guest), netlink.LinkDel(guest)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	})
	for i := range 25 {
		publish(t, w.host, h, manyPorts(1+i)...)
		apply(t, w.host, h, networks()...)
	}
	close(stop)
	churn.Wait()
	publish(t, w.host, h, everywhere()...)
	apply(t, w.host, h, networks()...)
	wantAnswer(t, w.inet, host4+":8080", inet4)
	noted, err := os.ReadFile(filepath.Join(dir, "forwarding.json"))
	if err != nil || strings.Contains(string(noted), "guest") {
		t.Errorf("%v; noted of devices that are gone:\n%s", err, noted)
	}
	if got := rules(t, w.host); strings.Contains(got, "guest") {
		t.Errorf("rules about devices that are gone:\n%s", got)
	}
}
