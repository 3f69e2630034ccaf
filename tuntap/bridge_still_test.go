package tuntap

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// stillBridge is a bridge that moves when it is told to, with the far ends of
// its device and of its router.
func stillBridge(t *testing.T) (b *Bridge, jail, router *os.File) {
	t.Helper()
	device, jail := pair(t, unix.SOCK_SEQPACKET)
	near, router := pair(t, unix.SOCK_STREAM)
	dev, err := NewDevice("eth0", device)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = NewBridge(dev, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		jail.Close()
		router.Close()
	})
	if err := b.Join(near); err != nil {
		t.Fatal(err)
	}
	return b, jail, router
}

// FuzzBridgeStream lets a router send anything in any pieces.
func FuzzBridgeStream(f *testing.F) {
	f.Add(dataFrame(datagram(1, 8)), uint16(5))
	f.Add(append(dataFrame(datagram(1, 8)), 0, 255, 255, 0), uint16(1))
	f.Add([]byte("uwsgi-tuntap"), uint16(3))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		b, jail, router := stillBridge(t)
		over := false
		b.Ended = func(error) { over = true }
		// What a plain reader of frames makes of it.
		var want [][]byte
		bad := false
		for rest := stream; len(rest) >= frameHeader; {
			n := int(binary.LittleEndian.Uint16(rest[1:]))
			if bad = n > framePayload; bad || len(rest) < frameHeader+n {
				break
			}
			if n > 0 {
				want = append(want, rest[frameHeader:frameHeader+n])
			}
			rest = rest[frameHeader+n:]
		}
		for rest := stream; len(rest) > 0 && !over; {
			k := min(len(rest), int(piece)+1, 4096)
			if _, err := router.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
			if err := b.receive(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1<<16)
			for {
				n, errno := rawRead(descriptorOf(t, jail), buf)
				if errno != 0 {
					break
				}
				if len(want) == 0 || !bytes.Equal(buf[:n], want[0]) {
					t.Fatalf("% x came, not %d more", buf[:n], len(want))
				}
				want = want[1:]
			}
		}
		if len(want) > 0 || over != bad {
			t.Errorf("%d packets did not come; over %v, bad %v", len(want), over, bad)
		}
	})
}

func descriptorOf(t *testing.T, f *os.File) (fd int) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { fd = int(n) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestBridgeAllocatesNothing(t *testing.T) {
	b, jail, router := stillBridge(t)
	p, f, buf := datagram(1, 1400), dataFrame(datagram(1, 1400)), make([]byte, 1<<16)
	in, out := descriptorOf(t, jail), descriptorOf(t, router)
	turn := func() {
		for _, half := range [][]byte{f[:100], f[100:]} { // not on a frame's bound
			if rawWrite(in, p) != 0 || rawWrite(out, half) != 0 || b.send() != nil || b.receive() != nil {
				t.Fatal("a packet is stuck")
			}
		}
		for _, fd := range []int{out, in} {
			if n, errno := rawRead(fd, buf); n < len(p) || errno != 0 {
				t.Fatalf("%d bytes, %v", n, errno)
			}
		}
	}
	turn() // the first packet announces, the first half frame gets its buffer
	if n := testing.AllocsPerRun(100, turn); n > 0 {
		t.Errorf("%v allocations a turn", n)
	}
}
