package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// useLegacy lets iptables be iptables-legacy for this test.
func useLegacy(t *testing.T) {
	t.Helper()
	binary := nettest.Program(t, "xtables-legacy-multi")
	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "lock"))
}

func TestWatchPutsBack(t *testing.T) {
	damage := []struct{ name, cmd string }{
		{"flush of the filter", "iptables -F; ip6tables -F"},
		{"flush of nat", "iptables -t nat -F"},
		{"flush and delete", "iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X"},
		{"jump removed", "iptables -D FORWARD -j fiefdom-test-fwd"},
		{"one rule removed", "iptables -D fiefdom-test-fwd 1"},
		{"a rule put in", "ip6tables -I fiefdom-test-fwd -j ACCEPT"},
		{"restore of another file", "printf '*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n' | iptables-restore; iptables -D FORWARD -j ACCEPT"},
		{"forwarding off", "echo 0 >/proc/sys/net/ipv4/conf/fief0/forwarding"},
		{"flush of what is published", "iptables -t nat -F PREROUTING; ip6tables -t nat -F PREROUTING"},
		{"flush of what the host's programs reach", "iptables -t nat -F OUTPUT; ip6tables -t nat -F OUTPUT"},
		{"flush of mangle", "iptables -t mangle -F; iptables -t mangle -X"},
		{"one published port removed", "iptables -t nat -D fiefdom-test-pre 2"},
		{"a published port put in", "ip6tables -t nat -I fiefdom-test-out -p tcp --dport 8080 -j ACCEPT"},
		{"the route of ::1 removed", "ip -6 route del local ::1 dev fief0 table local"},
	}
	test := func(flush string) func(t *testing.T) {
		return func(t *testing.T) {
			s := newSite(t)
			h := newHost(t, s.host, "test", t.TempDir())
			apply(t, s.host, h, network())
			serve(t, s.pool, 8000)
			publish(t, s.host, h, everywhere()...)
			want := rules(t, s.host)
			stop := watch(t, s.host, h)
			for _, d := range append(damage, struct{ name, cmd string }{"flush of everything", flush}) {
				t.Run(d.name, func(t *testing.T) {
					s.host.Run(t, "sh", "-c", d.cmd)
					nettest.Eventually(t, soon, "the rules are back", func() bool { return sorted(rules(t, s.host)) == sorted(want) })
					nettest.Eventually(t, soon, "forwarding is back", func() bool { return sysctl(t, s.host, "ipv4/conf/fief0/forwarding") == "1" })
					wantReach(t, true, s.pool, inet4, inet6)
					nettest.Eventually(t, soon, "::1 leads there", func() bool {
						return strings.Contains(s.host.Run(t, "ip", "-6", "route", "show", "table", "local", "::1"), "fief0")
					})
					for _, addr := range []string{host4, host6} {
						wantAnswer(t, s.lan, net.JoinHostPort(addr, "8080"), map[string]string{host4: lan4, host6: lan6}[addr])
					}
					wantAnswer(t, s.host, "127.0.0.1:8080", gate4)
					wantAnswer(t, s.host, "[::1]:8080", gate6)
				})
			}
			t.Run("route_localnet off", func(t *testing.T) {
				s.host.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/fief0/route_localnet")
				nettest.Eventually(t, watchTick+soon, "it is on", func() bool { return sysctl(t, s.host, "ipv4/conf/fief0/route_localnet") == "1" })
			})
			remove(t, s.host, h)
			stop()
			if got := rules(t, s.host); strings.Contains(got, "fiefdom") {
				t.Errorf("put back after Remove:\n%s", got)
			}
		}
	}
	t.Run("nft", test("nft flush ruleset"))
	t.Run("legacy", func(t *testing.T) {
		useLegacy(t)
		test("iptables -F; iptables -t nat -F; iptables -X; ip6tables -F")(t)
	})
}

// sorted ignores the order of tables, chains and rules, which differs with the
// order of their making; the order in our own chains is compared by the pings.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(slices.Sorted(slices.Values(lines)), "\n")
}

func TestWatchFollowsTheDefaultRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, network())
	watch(t, s.host, h)
	s.lan.Run(t, "ip", "route", "del", "default")
	uplink := func(dev string) func() bool {
		return func() bool {
			return strings.Contains(s.host.Run(t, "iptables", "-t", "nat", "-S"), "-A fiefdom-test-post -s 10.9.0.0/16 ! -d 10.9.0.0/16 -o "+dev+" -j MASQUERADE")
		}
	}
	s.host.Run(t, "ip", "route", "replace", "default", "via", lan4)
	nettest.Eventually(t, soon, "eth1 is the uplink", uplink("eth1"))
	s.lan.Run(t, "ip", "addr", "add", "203.0.113.5/32", "dev", "lo")
	nettest.Eventually(t, soon, "the pool reaches what is behind eth1", func() bool { return reaches(t, s.pool, "203.0.113.5", "0.2") })
	s.host.Run(t, "ip", "route", "add", "default", "via", inet4, "metric", "500")
	s.host.Run(t, "ip", "link", "set", "eth1", "down")
	nettest.Eventually(t, soon, "eth0 is the uplink", uplink("eth0"))
	s.host.Run(t, "ip", "route", "del", "default", "via", inet4)
	nettest.Eventually(t, soon, "there is no uplink", func() bool {
		return !strings.Contains(s.host.Run(t, "iptables", "-t", "nat", "-S"), "MASQUERADE")
	})
}

func TestWatchWaitsForAnUplink(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := network()
	n.Masquerade = "wan0"
	h := newHost(t, s.host, "test", t.TempDir())
	apply(t, s.host, h, n)
	watch(t, s.host, h)
	s.host.Run(t, "ip", "tuntap", "add", "dev", "wan0", "mode", "tun")
	nettest.Eventually(t, soon, "the uplink forwards", func() bool { return sysctl(t, s.host, "ipv4/conf/wan0/forwarding") == "1" })
	if got := s.host.Run(t, "iptables", "-S", "fiefdom-test-fwd"); !strings.Contains(got, "-i wan0 -m conntrack ! --ctstate") {
		t.Errorf("it has no guard:\n%s", got)
	}
}

func TestWatchLeavesNothing(t *testing.T) {
	nettest.NoLeaks(t)
	ns := nettest.NewNS(t)
	h := newHost(t, ns, "test", t.TempDir())
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ns.Do(t, func() {
			if err := h.Watch(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A watched host on which nothing of ours happens costs nothing.
func TestWatchIgnoresOthers(t *testing.T) {
	s := newSite(t)
	s.host.Do(t, func() {
		e, err := subscribe(t.Context(), "fiefdom-test")
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		run := func(cmd string) {
			if out, err := exec.Command("sh", "-c", cmd).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", cmd, err, out)
			}
		}
		tests := []struct {
			name, cmd string
			want      bool
		}{
			{"others' rule added", "iptables -A FORWARD -j ACCEPT", false},
			{"others' chain filled", "iptables -N others; iptables -A others -j ACCEPT", false},
			{"others' chain flushed", "iptables -F others", false},
			{"route that is no default", "ip route add 203.0.113.0/24 dev eth0", false},
			{"rule gone from FORWARD", "iptables -D FORWARD -j ACCEPT", true},
			{"chain gone", "iptables -X others", true},
			{"our chain made and filled", "iptables -N fiefdom-test-fwd; iptables -A fiefdom-test-fwd -j ACCEPT", true},
			{"default route gone", "ip route del default", true},
			{"address", "ip address add 203.0.113.77/32 dev eth0", true},
			{"link down", "ip link set eth1 down", true},
			{"ruleset flushed", "nft flush ruleset", true},
		}
		for _, tt := range tests {
			for deadline := time.Now().Add(300 * time.Millisecond); ; { // what the last one set off ends
				if more, err := e.wait(50 * time.Millisecond); err != nil || !more || time.Now().After(deadline) {
					break
				}
			}
			run(tt.cmd)
			// Netlink announces before the command returns: no need to wait for long.
			if got, err := e.wait(50 * time.Millisecond); got != tt.want || err != nil {
				t.Errorf("%s: of interest %v, %v, want %v", tt.name, got, err, tt.want)
			}
		}
	})
}

// More announcements than the socket holds count as one of interest.
func TestEventsLost(t *testing.T) {
	t.Parallel()
	ns := nettest.NewNS(t)
	ns.Do(t, func() {
		e, err := subscribe(t.Context(), "fiefdom-test")
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		if err := unix.SetsockoptInt(e.netfilter, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for i := range 200 {
			fmt.Fprintf(&b, "-A OUTPUT -p tcp --dport %d -j ACCEPT\n", i+1)
		}
		cmd := exec.Command("iptables-restore")
		cmd.Stdin = strings.NewReader("*filter\n" + b.String() + "COMMIT\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got, err := e.wait(time.Second); !got || err != nil {
			t.Errorf("%v, %v after the loss of announcements", got, err)
		}
	})
}

func TestRuleChainOfBrokenMessages(t *testing.T) {
	attr := func(size, kind uint16, data string) []byte {
		b := binary.NativeEndian.AppendUint16(nil, size)
		return append(binary.NativeEndian.AppendUint16(b, kind), data...)
	}
	table := append(make([]byte, 4), attr(8, 1, "nat\x00")...)
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, ""},
		{"header only", make([]byte, 4), ""},
		{"half a header", make([]byte, 2), ""},
		{"size 0", append(make([]byte, 4), attr(0, 2, "x")...), ""},
		{"size past the end", append(make([]byte, 4), attr(200, 2, "x")...), ""},
		{"table, then chain", append(table, attr(8, 2, "abc\x00")...), "abc"},
		{"padding cut off", append(make([]byte, 4), attr(5, 1, "x")...), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ruleChain(tt.data); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if routesChanged(&syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWROUTE}}) {
		t.Error("an empty route is of interest")
	}
}

// Somebody who holds the lock delays us, no more.
func TestLockIsWaitedFor(t *testing.T) {
	useLegacy(t)
	s := newSite(t)
	lock, err := os.Create(os.Getenv("XTABLES_LOCKFILE"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, s.host, "test", t.TempDir())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.host.Do(t, func() {
			if err := h.Apply([]Network{network()}); err != nil {
				t.Errorf("apply: %v", err)
			}
		})
	}()
	select {
	case <-done:
		t.Error("applied while another held the lock")
	case <-time.After(500 * time.Millisecond):
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	<-done
	wantReach(t, true, s.pool, inet4, inet6)
}
