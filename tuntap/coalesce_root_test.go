package tuntap

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// Two flows of numbered datagrams of mixed sizes cross real devices: each comes
// whole and in order, though most of them travelled merged.
func TestRealDatagramsTravelMerged(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	blogNS, _ := w.jail("blog", blog, blog6)
	shopNS, _ := w.jail("shop", shop, shop6)
	for _, to := range []netip.Addr{gateway, gateway6} {
		blogNS.Run(t, "ping", "-c", "1", "-W", "5", to.String())
		shopNS.Run(t, "ping", "-c", "1", "-W", "5", to.String())
	}
	for name, c := range map[string]struct {
		from, to *nettest.NS
		src, dst netip.Addr
		device   string
	}{
		"IPv4":            {blogNS, shopNS, blog, shop, "eth0"},
		"IPv6":            {blogNS, shopNS, blog6, shop6, "eth0"},
		"to the host":     {blogNS, w.hostNS, blog, gateway, "fief0"},
		"from the host":   {w.hostNS, shopNS, gateway, shop, "eth0"},
		"from the host 6": {w.hostNS, shopNS, gateway6, shop6, "eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := received(t, c.to, c.device)
			n := numbered(t, c.from, c.to, c.src, c.dst)
			writes := received(t, c.to, c.device) - before
			t.Logf("%d datagrams in %d writes", n, writes)
			if writes > n*9/10 {
				t.Errorf("%d datagrams took %d writes", n, writes)
			}
		})
	}
	rightChecksums(t, shopNS)
	rightChecksums(t, w.hostNS)
}

// Towards a wire whose card does nothing, the host's kernel cuts what was merged
// and makes the checksums, which the far end checks.
func TestMergedDatagramsAreCutForTheWire(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	blogNS, _ := w.jail("blog", blog, blog6)
	inetNS := nettest.NewNS(t)
	host, host6 := nettest.HostAddr4, nettest.HostAddr6
	nettest.Veth(t,
		nettest.End{NS: w.hostNS, Name: "up0", Addrs: prefixes(host.String()+"/24", host6.String()+"/64")},
		nettest.End{NS: inetNS, Name: "eth0", Addrs: prefixes(nettest.InetAddr4.String()+"/24", nettest.InetAddr6.String()+"/64")})
	w.hostNS.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	w.hostNS.Do(t, func() { offloadsOff(t, "up0") })
	for _, gw := range []netip.Addr{gateway, gateway6} {
		blogNS.Route(t, gw)
		blogNS.Run(t, "ping", "-c", "1", "-W", "5", gw.String())
	}
	inetNS.Route(t, host)
	inetNS.Route(t, host6)
	for name, c := range map[string]struct{ src, dst netip.Addr }{
		"IPv4": {blog, nettest.InetAddr4},
		"IPv6": {blog6, nettest.InetAddr6},
	} {
		t.Run(name, func(t *testing.T) {
			before, wire := received(t, w.hostNS, "fief0"), received(t, inetNS, "eth0")
			n := numbered(t, blogNS, inetNS, c.src, c.dst)
			writes, wire := received(t, w.hostNS, "fief0")-before, received(t, inetNS, "eth0")-wire
			t.Logf("%d datagrams in %d writes, %d packets on the wire", n, writes, wire)
			if writes > n*9/10 || wire < n {
				t.Errorf("%d datagrams took %d writes and were %d packets on the wire", n, writes, wire)
			}
		})
	}
	rightChecksums(t, inetNS)
}

// rightChecksums fails if datagrams with wrong checksums came to a namespace.
func rightChecksums(t *testing.T, ns *nettest.NS) {
	t.Helper()
	for _, line := range []string{
		ns.Run(t, "sh", "-c", `awk '/^Udp:/ { if (n) print "UdpInCsumErrors", $n; else for (i = 1; i <= NF; i++) if ($i == "InCsumErrors") n = i }' /proc/net/snmp`),
		ns.Run(t, "grep", "Udp6InCsumErrors", "/proc/net/snmp6"),
	} {
		if f := strings.Fields(line); len(f) != 2 || f[1] != "0" {
			t.Errorf("wrong checksums came: %q", line)
		}
	}
}

// received is how many packets were written to a device, merged ones once.
func received(t *testing.T, ns *nettest.NS, device string) int {
	t.Helper()
	text := ns.Run(t, "cat", "/proc/net/dev")
	for line := range strings.Lines(text) {
		if name, numbers, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == device {
			n, err := strconv.Atoi(strings.Fields(numbers)[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no device %s in\n%s", device, text)
	return 0
}

// numbered sends two flows of datagrams and checks what comes. It returns how
// many were sent. Nothing may be lost: as many as fit into the device's ring are
// on their way at a time.
func numbered(t *testing.T, from, to *nettest.NS, src, dst netip.Addr) int {
	t.Helper()
	const port, window = 5300, 300
	total := scaled(40000, 2000000)
	var in *net.UDPConn
	to.Do(t, func() {
		var err error
		if in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, port))); err != nil {
			t.Fatal(err)
		}
	})
	defer in.Close()
	if err := in.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	var out [2]*net.UDPConn
	from.Do(t, func() {
		for i := range out {
			var err error
			at := netip.AddrPortFrom(src, uint16(6000+i))
			if out[i], err = net.DialUDP("udp", net.UDPAddrFromAddrPort(at), net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, port))); err != nil {
				t.Fatal(err)
			}
		}
	})
	var arrived atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- readNumbered(in, total, &arrived) }()

	random := rand.New(rand.NewPCG(1, 2))
	deadline := time.Now().Add(time.Minute)
	sizes := []int{8, 64, 64, 64, 200, 1000, 1452, 1472, 4000} // the last in fragments
	var numbers [2]uint32
	b := make([]byte, 1<<13)
	for sent := 0; sent < total; {
		flow, size := random.IntN(2), sizes[random.IntN(len(sizes))]
		for range min(1+random.IntN(100), total-sent) {
			n := size
			if random.IntN(50) == 0 {
				n = 8 + random.IntN(1400)
			}
			fillNumbered(b[:n], flow, numbers[flow])
			if _, err := out[flow].Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			numbers[flow]++
			sent++
			// A fragmented datagram takes more than one place.
			for sent-int(arrived.Load()) >= window/4 && time.Now().Before(deadline) {
				time.Sleep(20 * time.Microsecond)
			}
		}
	}
	for _, c := range out {
		c.Close()
	}
	if err := in.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after %d of %d datagrams: %v", arrived.Load(), total, err)
	}
	return total
}

// fillNumbered makes the payload that is expected for a number: the number, the
// flow and length, then bytes that follow from them.
func fillNumbered(b []byte, flow int, number uint32) {
	binary.BigEndian.PutUint32(b, number)
	binary.BigEndian.PutUint16(b[4:], uint16(flow))
	binary.BigEndian.PutUint16(b[6:], uint16(len(b)))
	x := number*2654435761 + uint32(len(b))
	for i := 8; i < len(b); i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
}

func readNumbered(in *net.UDPConn, total int, arrived *atomic.Int64) error {
	b, want := make([]byte, 1<<14), make([]byte, 1<<14)
	var next [2]uint32
	for range total {
		n, from, err := in.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		flow := int(from.Port()) - 6000
		fillNumbered(want[:max(n, 8)], flow, next[flow])
		if string(b[:n]) != string(want[:n]) {
			return fmt.Errorf("flow %d: % x; want number %d of %d bytes", flow, b[:min(n, 16)], next[flow], n)
		}
		next[flow]++
		arrived.Add(1)
	}
	return nil
}
