package tuntap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// tap captures a device's packets as tcpdump does, and inspects each.
type tap struct {
	t        testing.TB
	device   string
	fd       int
	mtu      int
	stopping atomic.Bool
	ended    chan struct{}

	mu   sync.Mutex // guards seen
	seen captured
}

// captured is what was found. The faults are in packets.
type captured struct {
	in, out           map[onWire]int // packets, by whether they came to or left the device's namespace
	largeIn, largeOut int            // those larger than the MTU
	undone            int            // whose checksum was still left to others
	wrong             int            // neither large nor undone, and yet not right
	fault             error          // the first of all these
}

// capture begins to listen to a device of a namespace, in both directions.
func capture(t testing.TB, ns *nettest.NS, device string) *tap {
	t.Helper()
	c := &tap{t: t, device: device, ended: make(chan struct{})}
	c.seen.in, c.seen.out = make(map[onWire]int), make(map[onWire]int)
	ns.Do(t, func() {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			t.Fatal(err)
		}
		c.mtu = dev.MTU
		// Datagrams: without what the link puts before a packet. Protocol 0 until it
		// is bound, or it would hear of other devices too.
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatalf("open a capture: %v", err)
		}
		for _, set := range []func() error{
			func() error { return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) },
			func() error { return unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1) },
			func() error {
				return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000})
			},
			func() error {
				const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in the network's byte order
				return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: dev.Index})
			},
		} {
			if err := set(); err != nil {
				unix.Close(c.fd)
				t.Fatalf("capture %s: %v", device, err)
			}
		}
	})
	go c.read()
	t.Cleanup(func() { c.stop() })
	return c
}

// stop ends the capture when all that was on the device has been looked at, and
// returns what it found. A capture that missed packets proves nothing.
func (c *tap) stop() captured {
	c.t.Helper()
	if c.stopping.Swap(true) {
		return c.seen
	}
	<-c.ended
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || stats.Drops > 0 {
		c.t.Errorf("the capture of %s missed packets: %+v, %v", c.device, stats, err)
	}
	unix.Close(c.fd)
	return c.seen
}

// read looks at packets until nothing more comes after stop was called.
func (c *tap) read() {
	defer close(c.ended)
	b, control := make([]byte, 1<<17), make([]byte, 128)
	for {
		// Asked before, so that what was on the device by then is read below.
		last := c.stopping.Load()
		n, size, _, from, err := unix.Recvmsg(c.fd, b, control, 0)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && last:
			return
		case err == unix.EAGAIN:
		case err != nil:
			c.t.Errorf("capture %s: %v", c.device, err)
			return
		default:
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok {
				c.t.Errorf("capture %s: a packet from %v", c.device, from)
				return
			}
			c.mu.Lock()
			c.seen.take(b[:n], control[:size], link, c.mtu)
			c.mu.Unlock()
		}
	}
}

func (s *captured) take(b, control []byte, link *unix.SockaddrLinklayer, mtu int) {
	switch link.Protocol>>8 | link.Protocol<<8 {
	case unix.ETH_P_IP, unix.ETH_P_IPV6:
	default:
		return // ARP
	}
	f, err := inspect(b, mtu)
	way, large := s.in, &s.largeIn
	if link.Pkttype == unix.PACKET_OUTGOING {
		way, large = s.out, &s.largeOut
	}
	way[f]++
	left := leftUndone(control)
	if left {
		s.undone++
		err = errors.Join(errors.New("its checksum was never made"), err)
	}
	if len(b) > mtu {
		*large++
	} else if err != nil && !left {
		s.wrong++
	}
	if err != nil && s.fault == nil {
		s.fault = fmt.Errorf("%+v: %w: % x", f, err, b[:min(len(b), 80)])
	}
}

// leftUndone reports whether the kernel said that a packet's checksum is left
// to a card: struct tpacket_auxdata (linux/if_packet.h) begins with its status.
func leftUndone(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
		}
	}
	return false
}

// clean fails the test if there was a fault, or nothing at all.
func (s captured) clean(t *testing.T, where string) {
	t.Helper()
	if len(s.in) == 0 || len(s.out) == 0 {
		t.Errorf("%s: nothing was captured: %d flows in, %d out", where, len(s.in), len(s.out))
	}
	if s.fault != nil {
		t.Errorf("%s: %d packets without a checksum, %d too large, %d wrong; the first: %v", where, s.undone, s.largeIn+s.largeOut, s.wrong, s.fault)
	}
}

// passed waits until so many packets of a port went each way. Of datagrams it
// must be just as many.
func (c *tap) passed(t *testing.T, six bool, proto byte, port uint16, n int) {
	t.Helper()
	var in, out int
	nettest.Eventually(t, 5*time.Second, "packets to pass "+c.device, func() bool {
		in, out = c.soFar(six, proto, port)
		return in >= n && out >= n
	})
	if proto == protoUDP && (in != n || out != n) {
		t.Errorf("%d datagrams came and %d left; want %d", in, out, n)
	}
}

// soFar is how many packets of a port have come and left by now.
func (c *tap) soFar(six bool, proto byte, port uint16) (in, out int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return count(c.seen.in, six, proto, port), count(c.seen.out, six, proto, port)
}

// count adds up the packets of one family and protocol by a port.
func count(packets map[onWire]int, six bool, proto byte, port uint16) (n int) {
	for f, k := range packets {
		if f.six == six && f.proto == proto && (f.src == port || f.dst == port) {
			n += k
		}
	}
	return n
}
