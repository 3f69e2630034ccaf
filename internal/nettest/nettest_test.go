package nettest_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func TestNSIsAlone(t *testing.T) {
	nettest.NoLeaks(t)
	ns := nettest.NewNS(t)
	if got := ns.Run(t, "ip", "-o", "link"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "LOOPBACK,UP") {
		t.Errorf("devices are not lo alone, up:\n%s", got)
	}
	ns.Run(t, "ping", "-c1", "-W1", "127.0.0.1")
}

func TestWorldReachesItsInternet(t *testing.T) {
	nettest.NoLeaks(t)
	w := nettest.NewWorld(t)
	w.Run(t, "ping", "-c1", "-W2", nettest.InetAddr4.String())
	w.Run(t, "ping", "-c1", "-W2", nettest.InetAddr6.String())
	if out, err := w.Try(t, "ping", "-c1", "-W1", "-I", "127.0.0.1", nettest.InetAddr4.String()); err == nil {
		t.Errorf("a ping that cannot work worked:\n%s", out)
	}
}

func TestWorldIsPrivate(t *testing.T) {
	w := nettest.NewWorld(t)
	w.Run(t, "sh", "-c", "echo here >/run/marker && echo x >/etc/marker")
	if _, err := os.Stat("/run/marker"); err == nil {
		t.Error("/run of the machine has the world's file")
	}
	if got, err := os.ReadFile(w.Path("/run/marker")); string(got) != "here\n" {
		t.Errorf("the world's file from outside: %q, %v", got, err)
	}
	if got := w.Run(t, "sh", "-c", "cat /proc/self/cgroup"); !strings.Contains(got, "0::/\n") {
		t.Errorf("not at the root of its cgroup tree:\n%s", got)
	}
	if got := w.Run(t, "ps", "-e"); strings.Contains(got, "nettest.test") {
		t.Errorf("sees processes of the machine:\n%s", got)
	}
}

func TestSnapshot(t *testing.T) {
	w := nettest.NewWorld(t)
	before := w.Snapshot(t)
	if diff := nettest.Diff(before, w.Snapshot(t)); diff != "" {
		t.Fatalf("two snapshots of a quiet world differ:\n%s", diff)
	}
	tests := []struct{ name, do, undo, want string }{
		{"process", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &", "pkill sleep", "+ process "},
		{"link", "ip tuntap add dev left0 mode tun", "ip tuntap del dev left0 mode tun", "+ link left0:"},
		{"address", "ip addr add 10.9.0.1/16 dev lo", "ip addr del 10.9.0.1/16 dev lo", "+ address lo 10.9.0.1/16"},
		{"route", "ip route add 192.0.2.0/24 dev lo", "ip route del 192.0.2.0/24", "+ route4 192.0.2.0/24"},
		{"rule", "iptables -A FORWARD -j DROP", "iptables -D FORWARD -j DROP", "+ iptables filter   1 -A FORWARD -j DROP"},
		{"chain", "ip6tables -t nat -N left", "ip6tables -t nat -X left", "+ ip6tables nat :left -"},
		{"policy", "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT", "+ iptables filter :FORWARD DROP"},
		{"mount", "mount -t tmpfs left /mnt", "umount /mnt", "+ mount /mnt tmpfs"},
		{"file", "echo x >/run/left", "rm /run/left", "+ file /run/left"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.Run(t, "sh", "-c", tt.do)
			var diff string // a process in the background takes a moment to have a name
			nettest.Eventually(t, 5*time.Second, "the snapshot shows it", func() bool {
				diff = nettest.Diff(before, w.Snapshot(t))
				return diff != ""
			})
			if !strings.HasPrefix(diff, tt.want) {
				t.Errorf("got %q, want %q…", diff, tt.want)
			}
			w.Run(t, "sh", "-c", tt.undo)
			defer func() {
				if t.Failed() {
					t.Logf("left over:\n%s", diff)
				}
			}()
			nettest.Eventually(t, 5*time.Second, "the world is as before", func() bool {
				diff = nettest.Diff(before, w.Snapshot(t))
				return diff == ""
			})
		})
	}
}

// Whatever a test leaves running must be gone with its world. (That its cgroups
// are gone is checked by the world itself, at its end.)
func TestWorldEndsWhatRunsInIt(t *testing.T) {
	nettest.Root(t)
	marker := strconv.Itoa(100000 + os.Getpid())
	running := func() bool {
		out, err := exec.Command("pgrep", "-f", "sleep "+marker).CombinedOutput()
		return err == nil && len(out) > 0
	}
	t.Run("world", func(t *testing.T) {
		w := nettest.NewWorld(t)
		w.Start(t, exec.Command("sleep", marker))
		w.Run(t, "sh", "-c", "setsid sh -c 'sleep "+marker+"; :' >/dev/null 2>&1 </dev/null &")
		nettest.Eventually(t, 5*time.Second, "the processes run", running)
	})
	if running() {
		t.Errorf("sleep %s still runs", marker)
	}
}
