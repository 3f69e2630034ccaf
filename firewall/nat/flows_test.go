package nat

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// flood opens UDP flows from a namespace to inet, each by a packet that nobody
// answers.
func flood(t *testing.T, ns *nettest.NS, to string, n int) {
	t.Helper()
	addr := netip.MustParseAddr(to)
	ns.Do(t, func() {
		for left := n; left > 0; left -= 60_000 { // a source port each
			domain := unix.AF_INET
			if addr.Is6() {
				domain = unix.AF_INET6
			}
			fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			for i := range min(left, 60_000) {
				var sa unix.Sockaddr = &unix.SockaddrInet4{Port: i + 1, Addr: [4]byte(addr.AsSlice()[:4])}
				if addr.Is6() {
					sa = &unix.SockaddrInet6{Port: i + 1, Addr: addr.As16()}
				}
				if err := unix.Sendto(fd, []byte("x"), 0, sa); err != nil && err != unix.ENOBUFS && err != unix.ECONNREFUSED {
					t.Fatal(err)
				}
			}
		}
	})
}

// flowsOf counts the flows of one source that the host's kernel has.
func (s *site) flowsOf(t *testing.T, src string) (n int) {
	t.Helper()
	family := netlink.InetFamily(unix.AF_INET)
	if strings.Contains(src, ":") {
		family = unix.AF_INET6
	}
	s.host.Do(t, func() {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, flow := range all {
			if flow.Forward.SrcIP.String() == src {
				n++
			}
		}
	})
	return n
}

// One vassal that opens flows without end fills its own share of the kernel's
// table, and no other's.
func TestFlowLimit(t *testing.T) {
	t.Parallel()
	n := 20_000
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		n = 1_000_000
	}
	w := newTown(t)
	for _, cmd := range []string{"iptables", "ip6tables"} { // answers cost more than they show
		w.inet.Run(t, cmd, "-A", "INPUT", "-p", "udp", "-j", "DROP")
	}
	serve(t, w.inet, 7000)
	const limit = 4096
	nets := networks()
	nets[0].Flows = limit
	h := newHost(t, w.host, "test", t.TempDir())
	apply(t, w.host, h, nets...)
	tests := []struct{ name, src, to string }{
		{"through the host", other4, inet4},
		{"through the host, IPv6", other6, inet6},
		{"to the host itself", pool4, gate4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ns := w.other
			if tt.src == pool4 {
				ns = w.pool
			}
			flood(t, ns, tt.to, n)
			nettest.Eventually(t, 10*time.Second, "the flows are there", func() bool { return w.flowsOf(t, tt.src) > limit/2 })
			if got := w.flowsOf(t, tt.src); got > limit {
				t.Errorf("%d flows at once, want %d at most", got, limit)
			}
		})
	}
	t.Run("others", func(t *testing.T) {
		w.pool.Run(t, "ip", "address", "add", "10.9.0.9/16", "dev", "eth0") // has none yet
		failed := make(chan string, 1000)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				w.pool.Do(t, func() {
					for range 50 {
						d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 9, 0, 9)}}
						conn, err := d.Dial("tcp", net.JoinHostPort(inet4, "7000"))
						if err != nil {
							failed <- err.Error()
							continue
						}
						conn.Close()
					}
				})
			})
		}
		wg.Wait()
		if len(failed) > 0 {
			t.Errorf("%d of 1,000 new connections failed, such as: %s", len(failed), <-failed)
		}
	})
	t.Run("without a limit", func(t *testing.T) { // so that the number means something
		nets[0].Flows = 0
		apply(t, w.host, h, nets...)
		if got := rules(t, w.host); strings.Contains(got, "connlimit") {
			t.Errorf("still limited:\n%s", got)
		}
		flood(t, w.other, inet4, 3*limit)
		nettest.Eventually(t, 10*time.Second, fmt.Sprintf("there are more than %d flows", limit), func() bool { return w.flowsOf(t, other4) > limit })
	})
}
