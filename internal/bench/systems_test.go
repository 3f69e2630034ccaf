package bench

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	vnetns "github.com/vishvananda/netns"

	"fiefdom/internal/nettest"
)

// congestion is the congestion control of every sender: by itself it moves a
// single stream by a factor of two. It is set on each socket, as the sysctl of a
// namespace takes only what the machine allows to everybody.
const congestion = "cubic"

// system is a host with two vassals and an internet.
type system struct {
	name                string
	six                 bool // does IPv6
	one, two, host, net place

	// ready, if there is one, is called before each measurement: the vassals may
	// have been started anew since the last.
	ready func(t *testing.T) error
}

// The pool of a system is the same everywhere; the worlds are apart.
var (
	pool    = [2]netip.Prefix{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd09::/64")}
	gateway = [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")}
	first   = [2]netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd09::2")}
	second  = [2]netip.Addr{netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd09::3")}
)

// in joins the places of a system in a world.
func in(w *nettest.World, name string, one, two *nettest.NS) *system {
	return &system{
		name: name, six: true,
		one: place{one, first}, two: place{two, second}, host: place{w.Host, gateway},
		net: place{w.Inet, [2]netip.Addr{nettest.InetAddr4, nettest.InetAddr6}},
	}
}

// veth is the kernel's own way: a bridge, a cable to each vassal, MASQUERADE.
func veth(t *testing.T) *system {
	t.Helper()
	w := nettest.NewWorld(t)
	w.Run(t, "sh", "-ec", fmt.Sprintf(`
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link add br0 type bridge
ip addr add %v/16 dev br0
ip addr add %v/64 dev br0 nodad
ip link set br0 up
iptables -t nat -A POSTROUTING -s %v -o eth0 -j MASQUERADE
ip6tables -t nat -A POSTROUTING -s %v -o eth0 -j MASQUERADE`, gateway[0], gateway[1], pool[0], pool[1]))
	vassal := func(cable string, addrs [2]netip.Addr) *nettest.NS {
		ns := nettest.NewNS(t)
		nettest.Veth(t, nettest.End{NS: w.Host, Name: cable}, nettest.End{NS: ns, Name: "eth0", Addrs: []netip.Prefix{
			netip.PrefixFrom(addrs[0], pool[0].Bits()), netip.PrefixFrom(addrs[1], pool[1].Bits()),
		}})
		w.Run(t, "ip", "link", "set", cable, "master", "br0")
		ns.Route(t, gateway[0])
		ns.Route(t, gateway[1])
		return ns
	}
	return in(w, "veth", vassal("one", first), vassal("two", second))
}

// inside is the network namespace of a process of a world.
func inside(t *testing.T, w *nettest.World, pid int) *nettest.NS {
	t.Helper()
	handle, err := vnetns.GetFromPath(w.Path(fmt.Sprintf("/proc/%d/ns/net", pid)))
	if err != nil {
		t.Fatalf("find the jail of process %d: %v", pid, err)
	}
	t.Cleanup(func() { handle.Close() })
	return &nettest.NS{Handle: handle}
}

// write writes a file of a world, whole.
func write(t *testing.T, w *nettest.World, path, text string) {
	t.Helper()
	path = w.Path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// logOf is the file for the output of an emperor; the test shows its end if it
// fails.
func logOf(t *testing.T) *os.File {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("an emperor said:\n%s", text[max(0, len(text)-8000):])
		}
		log.Close()
	})
	return log
}

// poolAddr is the nth address of the IPv4 pool, from its end, away from those
// of the two vassals that are measured.
func poolAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 9, byte(200 - n/250), byte(1 + n%250)})
}

// lines repeats a line of an ini.
func lines(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
		b.WriteByte('\n')
	}
	return b.String()
}
