package tuntap

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	bridgeBatch  = 32        // packets of a device that go out in one write
	bridgeRead   = 256 << 10 // bytes of the stream that one read takes
	bridgeFrame  = frameHeader + framePayload
	bridgeEvents = 4 // there are three descriptors
)

// ErrDeviceGone ends a bridge: somebody deleted its device.
var ErrDeviceGone = errors.New("the device is gone")

// MaxBridgedMTU is the largest packet in bytes that uWSGI's router gives to a
// device: its queue has 8192 bytes, the frame's header included.
const MaxBridgedMTU = 8188

// Bridge copies packets between a device without a vnet header and the stream
// of a foreign router, in uWSGI's frames. One goroutine runs it; its
// other methods are called before Run, or by Watch's function.
//
// What the router does not take in time waits in the device's queue, where the
// kernel drops whole packets and counts them; what no router of uWSGI's kind
// should see (chatter of IPv6, packets too long for a frame) goes uncounted; a frame that was begun is always
// finished. The device outlives connections: without one nothing is read.
type Bridge struct {
	// Ended is told that the connection is over. Connect gives the next one.
	Ended func(why error)
	// Announced is told of the first packet of a family that went out.
	Announced func(Announcement)

	ep      int
	dev     *Device
	conn    int // -1: none
	watched int // -1: none
	ready   func() error
	in      frameReader
	buf     []byte // of the stream
	out     []byte // frames of one batch
	unsent  []byte // the part of out that the router has not taken
	known   announcements
	masks   map[int]uint32 // what the set watches a descriptor for
}

// NewBridge makes a bridge of dev, which is its own unless there is an error. known is what
// an earlier bridge of the device announced.
func NewBridge(dev *Device, known []Announcement) (*Bridge, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the bridge's epoll set: %w", err)
	}
	b := &Bridge{
		Ended: func(error) {}, Announced: func(Announcement) {},
		ep: ep, dev: dev, conn: -1, watched: -1, masks: map[int]uint32{},
		buf: make([]byte, bridgeRead), out: make([]byte, bridgeBatch*bridgeFrame+1),
	}
	for _, a := range known {
		b.known.add(a)
	}
	if err := b.want(dev.FD(), 0); err != nil { // that it is gone is told without being asked
		return nil, errors.Join(err, unix.Close(ep))
	}
	return b, nil
}

// Watch has Run call ready when fd is readable, until it returns io.EOF; any
// other error ends Run. The descriptor stays the caller's.
func (b *Bridge) Watch(fd int, ready func() error) error {
	b.watched, b.ready = fd, ready
	return b.want(fd, unix.EPOLLIN)
}

// Connect takes over the connection conn, in place of one that may be there.
// Its first frames are those that register what was announced before.
func (b *Bridge) Connect(conn int) error {
	b.disconnect()
	if err := unix.SetNonblock(conn, true); err != nil {
		return errors.Join(fmt.Errorf("take the connection: %w", err), unix.Close(conn))
	}
	b.conn = conn
	b.in = frameReader{started: true} // a router sends no greeting
	b.unsent = b.known.frames(b.out[:0])
	b.flush()
	return nil
}

// Join is Connect with a file, which is closed; the bridge has a duplicate.
func (b *Bridge) Join(f *os.File) error {
	fd, err := takeFile(f)
	if err != nil {
		return fmt.Errorf("take the connection: %w", err)
	}
	return b.Connect(fd)
}

// disconnect forgets the connection. What was not sent is lost with it.
func (b *Bridge) disconnect() {
	if b.conn < 0 {
		return
	}
	b.forget(b.conn)
	unix.Close(b.conn)
	b.conn, b.unsent = -1, nil
	_ = b.want(b.dev.FD(), 0)
}

// end gives the connection up.
func (b *Bridge) end(why error) {
	b.disconnect()
	b.Ended(why)
}

// Close closes the connection and the device.
func (b *Bridge) Close() error {
	b.disconnect()
	return errors.Join(b.dev.Close(), unix.Close(b.ep))
}

// Run copies until the device is gone: ErrDeviceGone. Any other error is a fault
// of the bridge's own.
func (b *Bridge) Run() error {
	var events [bridgeEvents]unix.EpollEvent
	for {
		n, err := unix.EpollWait(b.ep, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets: %w", err)
		}
		for _, ev := range events[:max(n, 0)] {
			if err := b.turn(int(ev.Fd), ev.Events); err != nil {
				return err
			}
		}
	}
}

// turn serves one descriptor.
func (b *Bridge) turn(fd int, events uint32) error {
	switch fd {
	case b.dev.FD():
		if b.conn < 0 || len(b.unsent) > 0 { // only told because it is gone
			if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
				return ErrDeviceGone
			}
			return nil
		}
		return b.send()
	case b.conn:
		if events&unix.EPOLLOUT != 0 {
			b.flush()
		}
		if b.conn < 0 || events&^unix.EPOLLOUT == 0 {
			return nil
		}
		if err := b.receive(); err != nil || b.conn < 0 || len(b.unsent) > 0 {
			return err
		}
		// A write to the device runs the receiver's stack: its answer is often
		// there already, and reading it now saves a sleep.
		return b.send()
	case b.watched:
		err := b.ready()
		if errors.Is(err, io.EOF) {
			b.forget(b.watched)
			b.watched = -1
			return nil
		}
		return err
	}
	return nil // closed in this turn
}

// send takes what waits in the device, a batch at most, and sends it in one
// write. It is called with a connection that took all before.
func (b *Bridge) send() error {
	n := 0
	for range bridgeBatch {
		// One byte more than fits: a longer packet shows itself.
		frame := b.out[n : n+bridgeFrame+1]
		got, errno := rawRead(b.dev.FD(), frame[frameHeader:])
		if errno == unix.EAGAIN || errno == unix.EINTR {
			break
		}
		if errno != 0 || got == 0 {
			return ErrDeviceGone
		}
		packet := frame[frameHeader : frameHeader+got]
		if got > framePayload || !b.note(packet) {
			continue
		}
		putHeader(frame, kindData, got)
		n += frameHeader + got
	}
	if n > 0 {
		b.unsent = b.out[:n]
		b.flush()
	}
	return nil
}

// note says whether a packet is one that a router should see, and remembers the
// first of each family.
func (b *Bridge) note(packet []byte) bool {
	if !forRouters(packet) {
		return false
	}
	if a, first := b.known.first(packet); first {
		b.Announced(a)
	}
	return true
}

// flush writes what waits, and lets the device rest as long as something does.
func (b *Bridge) flush() {
	for len(b.unsent) > 0 {
		n, err := unix.Write(b.conn, b.unsent)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			b.end(fmt.Errorf("write frames: %w", err))
			return
		}
		b.unsent = b.unsent[n:]
	}
	dev, conn := uint32(unix.EPOLLIN), uint32(unix.EPOLLIN)
	if len(b.unsent) > 0 {
		dev, conn = 0, unix.EPOLLIN|unix.EPOLLOUT
	}
	if err := errors.Join(b.want(b.dev.FD(), dev), b.want(b.conn, conn)); err != nil {
		b.end(err)
	}
}

// receive reads the stream once and gives the device every packet that is
// complete. What the device does not take (it is down, or the packet is none)
// is dropped there.
func (b *Bridge) receive() error {
	n, errno := rawRead(b.conn, b.buf)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case errno != 0:
		b.end(fmt.Errorf("read frames: %w", errno))
		return nil
	case n == 0:
		b.end(errPeerClosed)
		return nil
	}
	for rest := b.buf[:n]; len(rest) > 0; {
		frame, next, err := b.in.next(rest)
		if err != nil {
			b.end(err)
			return nil
		}
		if frame == nil {
			return nil
		}
		if rest = next; len(frame) == frameHeader {
			continue
		}
		if errno := rawWrite(b.dev.FD(), frame[frameHeader:]); errno == unix.EBADFD {
			return ErrDeviceGone
		}
	}
	return nil
}

// want has the set watch fd for mask; errors and hang-ups are always told.
func (b *Bridge) want(fd int, mask uint32) error {
	old, there := b.masks[fd]
	if there && old == mask {
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	if !there {
		op = unix.EPOLL_CTL_ADD
	}
	ev := unix.EpollEvent{Events: mask, Fd: int32(fd)}
	if err := unix.EpollCtl(b.ep, op, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	b.masks[fd] = mask
	return nil
}

// forget takes fd out of the set; others may share its open file.
func (b *Bridge) forget(fd int) {
	delete(b.masks, fd)
	_ = unix.EpollCtl(b.ep, unix.EPOLL_CTL_DEL, fd, nil)
}
