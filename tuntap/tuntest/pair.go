package tuntest

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// End is the far end of a device in memory: what the kernel of a jail (or of
// the host) would read and write.
type End struct {
	file *os.File
	buf  []byte

	mu  sync.Mutex // guards out
	out []byte
}

// header is the length of what a tun with IFF_VNET_HDR puts before a packet;
// here it says that the packet is whole.
const header = 10

// Pair returns a device in memory, which gives and takes one packet a read or
// write as a tun does, and its far end. The device is the caller's to close;
// the far end is closed when the test ends.
func Pair(t testing.TB) (device *os.File, far *End) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("make a device in memory: %v", err)
	}
	far = &End{file: os.NewFile(uintptr(fds[1]), "far end"), buf: make([]byte, header+1<<16)}
	t.Cleanup(func() { far.file.Close() })
	return os.NewFile(uintptr(fds[0]), "device"), far
}

// Write sends one packet into the device. It waits for room, five seconds at most.
func (e *End) Write(packet []byte) error {
	if err := e.file.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = append(append(e.out[:0], make([]byte, header)...), packet...)
	_, err := e.file.Write(e.out)
	return err
}

// Send is Write that fails the test.
func (e *End) Send(t testing.TB, packet []byte) {
	t.Helper()
	if err := e.Write(packet); err != nil {
		t.Fatalf("send packet: %v", err)
	}
}

// Read returns the next packet; it is valid until the next Read.
// os.ErrDeadlineExceeded means that none came in time.
func (e *End) Read(timeout time.Duration) ([]byte, error) {
	if err := e.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	n, err := e.file.Read(e.buf)
	return e.buf[min(n, header):n], err
}

// Receive returns the next packet and fails the test if none comes.
func (e *End) Receive(t testing.TB) []byte {
	t.Helper()
	b, err := e.Read(5 * time.Second)
	if err != nil {
		t.Fatalf("receive packet: %v", err)
	}
	return append([]byte(nil), b...)
}

// Empty reports whether no packet waits right now.
func (e *End) Empty() bool {
	_, err := e.Read(time.Millisecond)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// Close closes the end: the device is gone for whoever reads it.
func (e *End) Close() error { return e.file.Close() }

// File is the far end itself, for tests that look at the header as well.
func (e *End) File() *os.File { return e.file }
