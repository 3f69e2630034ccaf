package nat

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
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

func TestMasquerade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	wantReach(t, false, s.pool, inet4, inet6)
	apply(t, s.host, h, network())
	// Inet has no route to the pool: an answer means that the source was ours.
	wantReach(t, true, s.pool, inet4, inet6)
	wantReach(t, false, s.inet, "10.9.0.7")
	before := rules(t, s.host)
	apply(t, s.host, h, network())
	if after := rules(t, s.host); after != before {
		t.Errorf("applying twice changed the rules from\n%s\nto\n%s", before, after)
	}
	for _, chain := range []string{"-post", "-fwd", "-in"} {
		if n := strings.Count(before, "-j fiefdom-test"+chain+"\n"); n != 2 { // one a family
			t.Errorf("%d jumps to %s, want 2 in\n%s", n, chain, before)
		}
	}
	remove(t, s.host, h)
	if left := rules(t, s.host); strings.Contains(left, "fiefdom") {
		t.Errorf("left behind:\n%s", left)
	}
}

// A host that drops by policy, and says nothing about the pool.
func TestPolicyDrop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, cmd := range []string{"iptables", "ip6tables"} {
		s.host.Run(t, cmd, "-P", "FORWARD", "DROP")
		s.host.Run(t, cmd, "-P", "INPUT", "DROP")
	}
	s.host.Run(t, "ip6tables", "-A", "INPUT", "-p", "icmpv6", "--icmpv6-type", "neighbour-solicitation", "-j", "ACCEPT")
	s.host.Run(t, "ip6tables", "-A", "INPUT", "-p", "icmpv6", "--icmpv6-type", "neighbour-advertisement", "-j", "ACCEPT")
	h := newHost(t, s.host, "test", t.TempDir())
	wantReach(t, false, s.pool, gate4, gate6)
	apply(t, s.host, h, network())
	wantReach(t, true, s.pool, inet4, inet6, gate4, gate6)
	wantReach(t, false, s.pool, host4, host6, lan4)
	wantReach(t, true, s.host, pool4, pool6)
	wantReach(t, false, s.inet, host4, host6)
}

// What the operator forbids before our jump is forbidden.
func TestOperatorsRulesComeFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.host.Run(t, "iptables", "-A", "FORWARD", "-d", inet4, "-j", "DROP")
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, network())
	wantReach(t, false, s.pool, inet4)
	wantReach(t, true, s.pool, inet6)
}

func TestNothingEntersThePool(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, network())
	// The host's owner makes it a router: ours must still not be entered.
	s.host.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	apply(t, s.host, h, network())
	wantReach(t, true, s.lan, host4)
	wantReach(t, false, s.lan, pool4, pool6)
	wantReach(t, true, s.host, pool4, pool6)
	t.Run("but by DNAT", func(t *testing.T) {
		s.host.Run(t, "iptables", "-t", "nat", "-A", "PREROUTING", "-d", "203.0.113.9", "-j", "DNAT", "--to", pool4)
		wantReach(t, true, s.lan, "203.0.113.9")
	})
	t.Run("other sources stay in", func(t *testing.T) {
		s.pool.Run(t, "ip", "addr", "add", "172.16.0.1/32", "dev", "lo")
		s.host.Run(t, "ip", "route", "add", "172.16.0.1", "dev", "fief0")
		wantReach(t, false, s.pool, "-I 172.16.0.1 "+lan4)
		wantReach(t, true, s.host, "172.16.0.1")
	})
}

// A host with two uplinks must forward nothing that it did not before.
func TestTwoNICs(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old IPv6=%v", old), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.inet.Run(t, "ip", "route", "add", lan4, "via", host4)
			s.inet.Run(t, "ip", "route", "add", lan6, "via", host6)
			dir := t.TempDir()
			h := newHost(t, s.host, "test", dir)
			h.oldIPv6 = old
			wantReach(t, false, s.inet, lan4, lan6)
			apply(t, s.host, h, network())
			wantReach(t, true, s.pool, inet4, inet6)
			check := func(t *testing.T) {
				t.Helper()
				wantReach(t, false, s.inet, lan4, lan6)
				wantReach(t, false, s.lan, inet4, inet6)
				if n := forwardedTo(t, s, lan4); n != 0 {
					t.Errorf("%d packets reached the other network", n)
				}
			}
			t.Run("first", check)
			t.Run("after a restart", func(t *testing.T) {
				remove(t, s.host, h)
				h = newHost(t, s.host, "test", dir)
				h.oldIPv6 = old
				apply(t, s.host, h, network())
				check(t)
			})
			t.Run("beside another instance that takes over", func(t *testing.T) {
				other := newHost(t, s.host, "other", t.TempDir())
				other.oldIPv6 = old
				apply(t, s.host, other, network())
				wantReach(t, true, s.pool, inet4, inet6)
				remove(t, s.host, h)
				check(t)
				wantReach(t, true, s.pool, inet4, inet6)
				if got, err := forwarding(t, s.host, other); err != nil || len(got) == 0 {
					t.Errorf("forwarding of the other: %v, %v", got, err)
				}
			})
		})
	}
}

// forwardedTo sends TCP segments of no connection from inet to lan, which
// conntrack calls invalid, and counts those that the host lets out.
func forwardedTo(t *testing.T, s *site, to string) (n int) {
	t.Helper()
	s.host.Run(t, "iptables", "-t", "mangle", "-A", "POSTROUTING", "-o", "eth1", "-s", inet4, "-p", "tcp")
	defer s.host.Run(t, "iptables", "-t", "mangle", "-F", "POSTROUTING")
	s.inet.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for _, flags := range []byte{0x04, 0x10, 0x11, 0x00, 0x29} { // RST, ACK, FIN ACK, none, all
			segment := []byte{0x30, 0x39, 0, 80, 12: 5 << 4, 13: flags, 19: 0}
			if err := unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(to).As4()}); err != nil {
				t.Fatal(err)
			}
		}
	})
	// A veth delivers before sendto returns or soon after; a ping to the host
	// behind the segments has passed after them.
	wantReach(t, true, s.inet, host4)
	list := s.host.Run(t, "iptables", "-t", "mangle", "-L", "POSTROUTING", "-nvx")
	if _, err := fmt.Sscan(strings.Split(list, "\n")[2], &n); err != nil {
		t.Fatalf("%v in\n%s", err, list)
	}
	return n
}

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

func TestWithoutMasquerade(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	n := network()
	n.Masquerade = ""
	before := rules(t, s.host)
	apply(t, s.host, h, n)
	if after := rules(t, s.host); after != before {
		t.Errorf("rules were made:\n%s", after)
	}
	if got, err := forwarding(t, s.host, h); err != nil || len(got) != 0 {
		t.Errorf("forwarding %v, %v", got, err)
	}
	// A family that is needed no longer goes.
	n.Masquerade = "eth0"
	apply(t, s.host, h, n)
	n.Pool = n.Pool[:1]
	apply(t, s.host, h, n)
	if got := s.host.Run(t, "ip6tables-save"); strings.Contains(got, "fiefdom") {
		t.Errorf("IPv6 without an IPv6 pool:\n%s", got)
	}
	wantReach(t, true, s.pool, inet4)
	n.Masquerade = ""
	apply(t, s.host, h, n)
	if got := rules(t, s.host); strings.Contains(got, "fiefdom") {
		t.Errorf("still there:\n%s", got)
	}
}

func TestApplyErrors(t *testing.T) {
	ns := nettest.NewNS(t)
	h := newHost(t, ns, "test", t.TempDir())
	ns.Do(t, func() {
		if err := h.Apply([]Network{network()}); err == nil || !strings.Contains(err.Error(), "network fief0: no such device") {
			t.Errorf("without the device: %v", err)
		}
	})
	ns.Run(t, "ip", "tuntap", "add", "dev", "fief0", "mode", "tun")
	t.Setenv("PATH", t.TempDir())
	ns.Do(t, func() {
		err := h.Apply([]Network{network()})
		if err == nil || !strings.Contains(err.Error(), `install the package "iptables"`) {
			t.Errorf("without iptables: %v", err)
		}
		if err := h.Remove(); err != nil {
			t.Errorf("remove without iptables: %v", err)
		}
	})
	if _, err := New("", t.TempDir(), slog.Default()); err == nil {
		t.Error("an instance without a name")
	}
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "forwarding.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New("x", bad, slog.Default()); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("with a damaged file: %v", err)
	}
}

// randomRules fills the tables with rules of somebody else.
func randomRules(t *testing.T, ns *nettest.NS, n int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, cmd := range []string{"iptables-restore", "ip6tables-restore"} {
		v6 := cmd != "iptables-restore"
		var b strings.Builder
		b.WriteString("*filter\n:others - [0:0]\n")
		for range n {
			hook := []string{"INPUT", "FORWARD", "OUTPUT", "others"}[rnd.IntN(4)]
			fmt.Fprintf(&b, "-A %s -s %s -p tcp -m tcp --dport %d -j %s\n", hook, randomPrefix(rnd, v6), rnd.IntN(65536), []string{"ACCEPT", "DROP", "RETURN"}[rnd.IntN(3)])
		}
		b.WriteString("-A FORWARD -m comment --comment \"a canary, with 'quotes'\" -j others\nCOMMIT\n*nat\n")
		for range n / 4 {
			fmt.Fprintf(&b, "-A POSTROUTING -s %s -o eth1 -j MASQUERADE\n", randomPrefix(rnd, v6))
		}
		b.WriteString("COMMIT\n*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n")
		ns.Run(t, "sh", "-c", cmd+" <<'END'\n"+b.String()+"END\n")
	}
}

func randomPrefix(rnd *rand.Rand, v6 bool) string {
	if v6 {
		return fmt.Sprintf("2001:db8:%x::/48", rnd.IntN(65536))
	}
	return fmt.Sprintf("203.0.%d.0/24", rnd.IntN(256))
}

// Rules of others, before ours and after, survive byte for byte.
func TestForeignRulesSurvive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	randomRules(t, s.host, 300)
	before := foreign(t, s.host)
	all := rules(t, s.host)
	h := newHost(t, s.host, "test", t.TempDir())
	other := newHost(t, s.host, "testing", t.TempDir())
	for i := range 10 {
		apply(t, s.host, h, network())
		if i == 0 {
			for _, cmd := range []string{"iptables", "ip6tables"} { // after our jump
				s.host.Run(t, cmd, "-A", "FORWARD", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
			}
			before = foreign(t, s.host)
		}
		apply(t, s.host, other, network())
		if got := foreign(t, s.host); got != before {
			t.Fatalf("cycle %d: foreign rules changed from\n%s\nto\n%s", i, before, got)
		}
		remove(t, s.host, h)
		if got := rules(t, s.host); !strings.Contains(got, "-j fiefdom-testing-fwd") || strings.Contains(got, "fiefdom-test-") {
			t.Fatalf("cycle %d: removing one instance left\n%s", i, got)
		}
		remove(t, s.host, other)
		if got := rules(t, s.host); got != before {
			t.Fatalf("cycle %d: removing changed the rules from\n%s\nto\n%s", i, before, got)
		}
	}
	for _, cmd := range []string{"iptables", "ip6tables"} {
		s.host.Run(t, cmd, "-D", "FORWARD", "-m", "comment", "--comment", "later", "-j", "ACCEPT")
	}
	if got := rules(t, s.host); got != all {
		t.Errorf("at the end the rules are not what they were:\n%s\nnow\n%s", all, got)
	}
}

// The next start of a killed instance knows nothing of it but its name.
func TestRemoveOfADeadInstance(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := rules(t, s.host)
	apply(t, s.host, newHost(t, s.host, "dead one", t.TempDir()), network())
	apply(t, s.host, newHost(t, s.host, "other", t.TempDir()), network())
	s.host.Run(t, "iptables", "-A", "FORWARD", "-j", chainBase("dead one")+"-fwd") // a jump too many
	remove(t, s.host, newHost(t, s.host, "dead one", t.TempDir()))
	if got := rules(t, s.host); strings.Contains(got, chainBase("dead one")) || !strings.Contains(got, "fiefdom-other-fwd") {
		t.Errorf("left:\n%s", got)
	}
	remove(t, s.host, newHost(t, s.host, "other", t.TempDir()))
	if got := rules(t, s.host); stripEmpty(got) != stripEmpty(before) {
		t.Errorf("rules were\n%s\nand are\n%s", before, got)
	}
}

// stripEmpty leaves rules only: iptables-nft makes a table when it is first used.
func stripEmpty(s string) (out string) {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "-A") {
			out += line
		}
	}
	return out
}
