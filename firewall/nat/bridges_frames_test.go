package nat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// packetSocket takes all frames of a namespace's eth0, and sends any.
func packetSocket(t *testing.T, ns *nettest.NS) int {
	t.Helper()
	fd := -1
	ns.Do(t, func() {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			t.Fatal(err)
		}
		wait := unix.NsecToTimeval(int64(500 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// frameOf is a UDP datagram from a to somebody, behind tags, with a mark in it.
func frameOf(from, to net.HardwareAddr, mark string, tags ...uint16) []byte {
	b := append(append([]byte{}, to...), from...)
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = binary.BigEndian.AppendUint16(b, 7) // the VLAN
	}
	src, dst := portA.Addrs[0].As4(), netip.MustParseAddr("10.100.0.9").As4()
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	ip := make([]byte, 28, 28+len(mark))
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(mark)))
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(ip[20:], 9)
	binary.BigEndian.PutUint16(ip[22:], 9)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(mark)))
	return append(append(b, ip...), mark...)
}

// Whoever may send any frame sends none into a VLAN, whatever is said to be in it, and
// none of a protocol that nobody judges; not even of a bridge that does not isolate.
func TestBridgeTakesNoTags(t *testing.T) {
	t.Parallel()
	open := bridgeOf
	open.Isolate = false
	w := newBridged(t, open)
	there := net.HardwareAddr{2, 0, 0, 0, 0, 0xc}
	out, in := packetSocket(t, w.a), packetSocket(t, w.lan)
	arrives := func(frame []byte, mark string) bool {
		t.Helper()
		if _, err := unix.Write(out, frame); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2000)
		for late := time.Now().Add(time.Second); time.Now().Before(late); {
			n, _, err := unix.Recvfrom(in, buf, 0)
			if err != nil {
				return false
			}
			if bytes.Contains(buf[:n], []byte(mark)) {
				return true
			}
		}
		return false
	}
	for i, tt := range []struct {
		name string
		tags []uint16
		want bool
	}{
		{"none", nil, true},
		{"802.1Q", []uint16{0x8100}, false},
		{"802.1ad", []uint16{0x88a8}, false},
		{"two", []uint16{0x88a8, 0x8100}, false},
		{"two of 802.1Q", []uint16{0x8100, 0x8100}, false},
		{"an old one", []uint16{0x9100}, false},
		{"PPPoE's", []uint16{0x8864}, false},
		{"none again", nil, true},
	} {
		mark := fmt.Sprintf("mark %d of a frame", i)
		if got := arrives(frameOf(portA.MAC, there, mark, tt.tags...), mark); got != tt.want {
			t.Errorf("tags %s: it arrives: %v, want %v", tt.name, got, tt.want)
		}
	}
}
