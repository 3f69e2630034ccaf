package nat

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func forwarding(t *testing.T, ns *nettest.NS, h *Host) (lines []string, err error) {
	t.Helper()
	ns.Do(t, func() { lines, err = h.Forwarding() })
	return lines, err
}

func TestForwardingIsRemembered(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	h := newHost(t, s.host, "test", dir)
	if got, err := forwarding(t, s.host, h); err != nil || len(got) != 0 {
		t.Fatalf("before: %v, %v", got, err)
	}
	apply(t, s.host, h, network())
	want := []string{"net.ipv4.conf.eth0.forwarding = 1", "net.ipv4.conf.fief0.forwarding = 1", "net.ipv6.conf.eth0.force_forwarding = 1", "net.ipv6.conf.fief0.force_forwarding = 1"}
	off := []string{"ipv4/ip_forward", "ipv4/conf/eth1/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/eth1/force_forwarding"}
	var single bool
	s.host.Do(t, func() {
		var err error
		if single, err = h.perDevice(true); err != nil {
			t.Fatal(err)
		}
	})
	if !single { // other tests are about IPv6 on such kernels
		want, off = want[:2], off[:2]
	}
	for _, name := range off {
		if got := sysctl(t, s.host, name); got != "0" {
			t.Errorf("%s is %s", name, got)
		}
	}
	remove(t, s.host, h)
	again := newHost(t, s.host, "test", dir)
	got, err := forwarding(t, s.host, again)
	if !single {
		got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "net.ipv6.") })
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("after: %q, %v, want %q", got, err, want)
	}
	s.host.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/eth0/forwarding")
	if got, err := forwarding(t, s.host, again); err != nil || slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
		t.Errorf("after one was switched off: %q, %v", got, err)
	}
	// Elsewhere, or after a boot, the file says nothing.
	if got, err := forwarding(t, s.lan, newHost(t, s.lan, "test", dir)); err != nil || len(got) != 0 {
		t.Errorf("in another namespace: %q, %v", got, err)
	}
}

func TestForwardingThatWasOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.host.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	dir := t.TempDir()
	h := newHost(t, s.host, "test", dir)
	apply(t, s.host, h, network())
	if got, err := forwarding(t, s.host, h); err != nil || len(got) != 0 {
		t.Errorf("switched on %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "forwarding.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a note without need: %v", err)
	}
	wantReach(t, true, s.pool, inet4, inet6)
	s.inet.Run(t, "ip", "route", "add", lan4, "via", host4)
	wantReach(t, true, s.inet, lan4) // a router stays a router
}

// Once the owner makes the host a router, the guard is in his way no more.
func TestGuardIsLifted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.inet.Run(t, "ip", "route", "add", lan4, "via", host4)
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, network())
	wantReach(t, false, s.inet, lan4)
	watch(t, s.host, h)
	s.host.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	nettest.Eventually(t, soon, "the guard is lifted", func() bool { return reaches(t, s.inet, lan4, "0.2") })
	if forwardedTo(t, s, lan4) == 0 { // so that a 0 elsewhere means something
		t.Error("nothing was forwarded without the guard")
	}
}

func TestOldIPv6KeepsRouterAdvertisements(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.host.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra; echo 0 >/proc/sys/net/ipv6/conf/eth1/accept_ra")
	h := newHost(t, s.host, "test", t.TempDir())
	h.oldIPv6 = true
	apply(t, s.host, h, network())
	if got := sysctl(t, s.host, "ipv6/conf/all/forwarding"); got != "1" {
		t.Errorf("IPv6 forwarding is %s", got)
	}
	if a, b := sysctl(t, s.host, "ipv6/conf/eth0/accept_ra"), sysctl(t, s.host, "ipv6/conf/eth1/accept_ra"); a != "2" || b != "0" {
		t.Errorf("accept_ra is %s and %s, want 2 and 0", a, b)
	}
	got, err := forwarding(t, s.host, h)
	if want := "net.ipv6.conf.eth0.accept_ra = 2"; err != nil || !slices.Contains(got, want) {
		t.Errorf("forwarding %q, %v has no %q", got, err, want)
	}
}

// The default route that the host learnt from its provider's router stays, and
// so does the learning.
func TestOldIPv6KeepsTheLearntRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.host.Run(t, "sh", "-c", "ip -6 route del default; echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	learnt := func() bool {
		return strings.Contains(s.host.Run(t, "ip", "-6", "route", "show", "default"), "dev eth0 proto ra")
	}
	learn := func(t *testing.T) {
		t.Helper()
		nettest.Eventually(t, 10*time.Second, "the route is learnt", func() bool { advertise(t, s.inet); return learnt() })
	}
	learn(t)
	h := newHost(t, s.host, "test", t.TempDir())
	h.oldIPv6 = true
	apply(t, s.host, h, network())
	if !learnt() {
		t.Errorf("the learnt route is gone:\n%s", s.host.Run(t, "ip", "-6", "route"))
	}
	wantReach(t, true, s.pool, inet6)
	s.host.Run(t, "ip", "-6", "route", "del", "default")
	learn(t)
}

// advertise sends a router advertisement (RFC 4861, 4.2) from the namespace's eth0.
func advertise(t *testing.T, ns *nettest.NS) {
	t.Helper()
	ns.Do(t, func() {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			t.Fatal(err)
		}
		message := []byte{0: 134, 4: 64, 6: 0x07, 7: 0x08, 15: 0} // a router for 1800 s
		to := &unix.SockaddrInet6{ZoneId: uint32(eth0.Index), Addr: netip.MustParseAddr("ff02::1").As16()}
		// Until the link-local address has passed its duplicate detection there is none to send from.
		if err := unix.Sendto(fd, message, 0, to); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatal(err)
		}
	})
}
