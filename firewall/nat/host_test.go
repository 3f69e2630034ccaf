package nat

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
