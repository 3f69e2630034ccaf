package nat

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// BenchmarkApply is what a network adds to the emperor's start: the first time,
// and when all is as it should be.
func BenchmarkApply(b *testing.B) {
	ns := nettest.NewNS(b)
	ns.Run(b, "ip", "tuntap", "add", "dev", "fief0", "mode", "tun")
	for _, fresh := range []bool{true, false} {
		b.Run(map[bool]string{true: "fresh", false: "again"}[fresh], func(b *testing.B) {
			ns.Do(b, func() {
				h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				for b.Loop() {
					if fresh {
						b.StopTimer()
						if err := h.Remove(); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					if err := h.Apply([]Network{network()}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkRemove is what a network adds to the emperor's end.
func BenchmarkRemove(b *testing.B) {
	ns := nettest.NewNS(b)
	ns.Run(b, "ip", "tuntap", "add", "dev", "fief0", "mode", "tun")
	ns.Do(b, func() {
		h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			b.StopTimer()
			if err := h.Apply([]Network{network()}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := h.Remove(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPublish is what one change among n published ports costs, each time
// with other contents: one restore of what is published, and the look after it.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ns := nettest.NewNS(b)
			ns.Run(b, "sh", "-ec", "ip tuntap add dev fief0 mode tun; ip addr add 10.9.0.1/16 dev fief0; ip link set fief0 up")
			ns.Do(b, func() {
				h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				if err := h.Apply([]Network{network()}); err != nil {
					b.Fatal(err)
				}
				var list []Published
				for i := range uint16(n) {
					list = append(list, port("0.0.0.0", 1000+i, 1000+i, pool4+":80"))
				}
				for b.Loop() {
					list[0].First++
					list[0].Last++
					if list[0].Last == 1000+uint16(n) {
						list[0].First, list[0].Last = 1, 1
					}
					if err := h.Publish(list); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkDispatch makes the rules of 1,000 published ports.
func BenchmarkDispatch(b *testing.B) {
	var list []Published
	for i := range uint16(1000) {
		list = append(list, port("0.0.0.0", 1000+i, 1000+i, pool4+":80"))
	}
	for b.Loop() {
		buildChains("fiefdom-bench", &plan{published: list})
	}
}

// BenchmarkPacket is what a packet of one of the host's programs to a published
// port costs, the first of its flow and later ones, beside how much else is
// published. It includes the system calls.
func BenchmarkPacket(b *testing.B) {
	for _, n := range []string{"1", "1000", "lists"} {
		ns := nettest.NewNS(b)
		ns.Run(b, "sh", "-ec", "ip tuntap add dev fief0 mode tun; ip addr add 10.9.0.1/16 dev fief0; ip link set fief0 up; ip addr add 192.0.2.1/32 dev lo")
		list := []Published{port("0.0.0.0", 9000, 9000, pool4+":80").udp()}
		switch n {
		case "1000":
			for i := range uint16(999) {
				list = append(list, port("0.0.0.0", 8999-i, 8999-i, pool4+":80").udp())
			}
		case "lists":
			for _, p := range longLists() {
				list = append(list, p.udp())
			}
		}
		ns.Do(b, func() {
			h, err := New("bench", b.TempDir(), slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			net := network()
			net.Pool = net.Pool[:1]
			if err := errors.Join(h.Apply([]Network{net}), h.Publish(list)); err != nil {
				b.Fatal(err)
			}
		})
		b.Run("first/"+n, func(b *testing.B) {
			ns.Do(b, func() {
				for b.Loop() {
					fd := udpSocket(b)
					knock(b, fd)
					unix.Close(fd)
				}
			})
		})
		b.Run("later/"+n, func(b *testing.B) {
			ns.Do(b, func() {
				fd := udpSocket(b)
				defer unix.Close(fd)
				for b.Loop() {
					knock(b, fd)
				}
			})
		})
	}
}

func udpSocket(b *testing.B) int {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	return fd
}

// knock sends a datagram to port 9000 of the host.
func knock(b *testing.B, fd int) {
	b.Helper()
	to := &unix.SockaddrInet4{Addr: netip.MustParseAddr("192.0.2.1").As4(), Port: 9000}
	if err := unix.Sendto(fd, []byte("x"), 0, to); err != nil && !errors.Is(err, unix.ENOBUFS) {
		b.Fatal(err)
	}
}
