package tuntap

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
)

// BenchmarkCoalesce is what merging costs a datagram, without any system call;
// decide is the rest of the router's own share, to compare.
func BenchmarkCoalesce(b *testing.B) {
	s := newStill(b)
	n, shopDev, sh := s.r.networks[0], s.shop.dev, s.r.shards[0]
	for _, c := range []struct {
		name string
		u    undone
	}{
		{"IPv4", partial(netip.AddrPortFrom(blog, 4000), netip.AddrPortFrom(shop, 53), make([]byte, 64))},
		{"IPv6", partial(netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(shop6, 53), make([]byte, 64))},
		{"IPv6 of 1400 bytes", partial(netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(shop6, 53), make([]byte, 1400))},
	} {
		if c.u.packet[0]>>4 == 4 {
			c.u.packet[6] = 0x40
			c.u.packet[10] -= 0x40 // and its checksum
		}
		framed := append(make([]byte, room-vnetLen), c.u.framed()...)
		b.Run("merge/"+c.name, func(b *testing.B) {
			if why := sh.pk.read(framed); why != pass {
				b.Fatal(why)
			}
			b.SetBytes(int64(len(c.u.packet)))
			b.ReportAllocs()
			for b.Loop() {
				if !sh.coalesce(shopDev, n, s.shop, s.shop, framed) {
					b.Fatal("not merged")
				}
				if b := sh.batchOf(shopDev); b.count == 40 { // instead of writing it
					b.seal()
					b.dev = nil
					sh.open--
				}
			}
		})
		b.Run("decide/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if sh.pk.read(framed) != pass || n.fromPeer(s.blog, &sh.pk, n.policy.Load(), sh.now).why != pass ||
					n.towards(s.shop, &sh.pk, n.policy.Load(), &s.blog.sent[firewall.In], sh.now).why != pass {
					b.Fatal("it does not pass")
				}
			}
		})
	}
}

// BenchmarkRealDrain is the router's time for a datagram between two real
// devices, its reads and writes and the receiver's whole stack included: "alone"
// as to a kernel that cannot cut large UDP packets, "merged" else. Both are
// measured in turn, because the machine's speed changes.
func BenchmarkRealDrain(b *testing.B) {
	nettest.Root(b)
	w := newRealWorld(b, native())
	blogNS, _ := w.jail("blog", blog, blog6)
	shopNS, _ := w.jail("shop", shop, shop6)
	for _, to := range []netip.Addr{gateway, gateway6} {
		blogNS.Run(b, "ping", "-c", "1", "-W", "5", to.String())
		shopNS.Run(b, "ping", "-c", "1", "-W", "5", to.String())
	}
	in := []int{
		datagramSocket(b, shopNS, netip.AddrPortFrom(shop, 5300), netip.AddrPort{}),
		datagramSocket(b, shopNS, netip.AddrPortFrom(shop6, 5300), netip.AddrPort{}),
		datagramSocket(b, w.hostNS, netip.AddrPortFrom(gateway, 5300), netip.AddrPort{}),
	}
	out := func(from netip.Addr, port uint16, to netip.Addr) int {
		return datagramSocket(b, blogNS, netip.AddrPortFrom(from, port), netip.AddrPortFrom(to, 5300))
	}
	first, second, six, host := out(blog, 6000, shop), out(blog, 6001, shop), out(blog6, 6000, shop6), out(blog, 6002, gateway)
	for _, c := range []struct {
		name string
		out  []int
		size int
	}{
		{"one flow", []int{first}, 64},
		{"one flow of IPv6", []int{six}, 64},
		{"one flow of 1400 bytes", []int{first}, 1400},
		{"two devices in turn", []int{first, host}, 64},
		{"two flows in turn", []int{first, second}, 64},
	} {
		b.Run(c.name, func(b *testing.B) {
			const count = 384 // what the device's ring holds, and the receiver's socket
			payload, sink := make([]byte, c.size), make([]byte, 2048)
			var spent [2]time.Duration
			for b.Loop() {
				for merge := range spent {
					_ = w.r.shards[0].mail.do(func() error {
						n := w.r.networks[0]
						p, to := w.holder(blog), w.holder(shop)
						to.dev.cuts, n.host.cuts = merge == 1, merge == 1
						for i := range count {
							_ = rawWrite(c.out[i%len(c.out)], payload)
						}
						start := time.Now()
						for range count/burst + 1 {
							p.deviceReady(unix.EPOLLIN)
						}
						spent[merge] += time.Since(start)
						for _, fd := range in {
							for {
								if _, errno := rawRead(fd, sink); errno != 0 {
									break
								}
							}
						}
						return nil
					})
				}
			}
			b.ReportMetric(float64(spent[0].Nanoseconds())/float64(b.N*count), "alone-ns/datagram")
			b.ReportMetric(float64(spent[1].Nanoseconds())/float64(b.N*count), "merged-ns/datagram")
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
		})
	}
}

// datagramSocket is a non-blocking socket with room for what a drain brings;
// a valid far end is connected to.
func datagramSocket(b *testing.B, ns *nettest.NS, at, to netip.AddrPort) (fd int) {
	b.Helper()
	domain := unix.AF_INET
	address := func(a netip.AddrPort) unix.Sockaddr {
		if a.Addr().Is6() {
			return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
		}
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	var err error
	ns.Do(b, func() {
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err == nil {
		err = unix.Bind(fd, address(at))
	}
	if err == nil && to.IsValid() {
		err = unix.Connect(fd, address(to))
	}
	if err != nil {
		b.Fatal(err)
	}
	return fd
}
