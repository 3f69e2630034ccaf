package tuntap

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outLimit bounds what waits for a peer that does not read, in bytes.
const outLimit = 256 << 10

var (
	errDeviceGone  = errors.New("its device is gone")
	errGoodbye     = errors.New("the emperor took it back")
	errPeerClosed  = errors.New("it closed the connection")
	errDescriptors = errors.New("it sent descriptors, which only the emperor may")
	errHalfFrame   = errors.New("it left half a frame standing")
	errTooMany     = errors.New("too many peers without an address")
)

// streamReady reads and writes a stream of frames, or hears of a life line.
func (p *peer) streamReady(events uint32) {
	r := p.net.r
	if events&unix.EPOLLOUT != 0 {
		r.flush(p)
	}
	switch {
	case p.gone || p.conn == nil:
	case p.conn.mask&unix.EPOLLIN != 0:
		if events&^unix.EPOLLOUT != 0 {
			r.readStream(p)
		}
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0: // it waits to be identified or served
		r.closePeer(p, errPeerClosed)
	}
}

// readStream reads once and takes every frame that is complete. One read a
// turn is a share that no peer can stretch.
func (r *Router) readStream(p *peer) {
	n, fds, err := r.receive(p)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case errors.Is(err, errDescriptors):
		r.closePeer(p, err)
		return
	case err != nil || n == 0:
		r.streamEnded(p, err)
		return
	}
	if fds >= 0 {
		p.hand.take(fds)
	}
	cut := false
	for b := r.buf[room : room+n]; len(b) > 0; {
		frame, rest, err := p.in.next(b)
		if err != nil {
			r.closePeer(p, err)
			return
		}
		if frame == nil {
			break
		}
		if r.takeFrame(p, frame); p.gone {
			return
		}
		b, cut = rest, true
	}
	r.minded(p, cut)
}

// takeFrame takes one whole frame.
func (r *Router) takeFrame(p *peer, frame []byte) {
	kind, payload := frame[3], frame[frameHeader:]
	switch {
	case p.handed:
		if kind == kindGoodbye {
			r.closePeer(p, errGoodbye)
		}
	case isHello(frame): // credentials are asked from the kernel, not from the peer
	case p.emperor && (kind == kindHand || kind == kindPart):
		r.takeHandover(p, kind, payload)
	case kind == kindRules:
		p.block = parseRuleBlock(payload)
	case len(payload) == 0: // uWSGI closes the peer at the next read; it carries nothing
	default:
		r.show(p)
		if !r.serving {
			p.net.note(p, &r.pk, drop(DropNotReady))
			return
		}
		clear(r.flat[room-vnetLen : room])
		r.fromPeer(p, r.flat[:room+copy(r.flat[room:], payload)])
	}
}

// streamEnded is told that nothing comes any more. A life line that ends
// without a goodbye means that the emperor died: nobody dies with it.
func (r *Router) streamEnded(p *peer, err error) {
	if p.handed {
		r.closeSource(p.conn)
		p.conn = nil
		return
	}
	if err != nil {
		err = fmt.Errorf("read its frames: %w", err)
	} else {
		err = errPeerClosed
	}
	r.closePeer(p, err)
}

// minded keeps the clock of half frames. cut: a frame was completed just now.
func (r *Router) minded(p *peer, cut bool) {
	if !p.in.partial() && len(p.hand.doc) == 0 {
		p.half = 0
		return
	}
	if cut || p.half == 0 {
		p.half = r.now
	}
	if !p.onTick {
		p.onTick = true
		r.halves = append(r.halves, p)
	}
}

// expireHalves closes peers whose half frame stands for too long.
func (r *Router) expireHalves() {
	r.halves = slices.DeleteFunc(r.halves, func(p *peer) bool {
		if !p.gone && p.half != 0 && r.now-p.half >= r.half {
			r.closePeer(p, errHalfFrame)
		}
		p.onTick = !p.gone && p.half != 0
		return !p.onTick
	})
}

// sendPlain sends a packet to a stream, whose frames cannot say what the kernel
// left undone: it is done here.
func (r *Router) sendPlain(p *peer, framed []byte) Reason {
	var o *offload
	if &framed[room] == &r.pk.raw[0] { // else it is the router's own, and whole
		o = &r.pk.undone
	}
	switch {
	case o == nil || o.flags|o.kind == 0:
		return r.sendFrame(p, framed)
	case o.kind == vnetWhole:
		o.finish(framed[room:])
		return r.sendFrame(p, framed)
	}
	for i := 0; ; i++ {
		n := r.pk.segment(r.flat[room:], i)
		if n == 0 {
			return pass
		}
		if why := r.sendFrame(p, r.flat[:room+n]); why != pass {
			return why
		}
	}
}

// sendFrame queues a packet behind what waits already, or writes it. Whole
// frames are dropped; the rest of one that is half sent is kept.
func (r *Router) sendFrame(p *peer, framed []byte) Reason {
	payload := len(framed) - room
	if payload > framePayload || p.conn == nil {
		return DropFull
	}
	framed = framed[room-frameHeader:]
	putHeader(framed, kindData, payload)
	if len(p.out) > 0 {
		if len(p.out)+len(framed) > outLimit {
			return DropFull
		}
		p.out = append(p.out, framed...)
		return pass
	}
	n, err := unix.Write(p.conn.fd, framed)
	if err != nil {
		if err != unix.EAGAIN && err != unix.EINTR {
			return DropNotReady // its end will be read soon
		}
		n = 0
	}
	if n < len(framed) {
		p.out = append(p.out, framed[n:]...)
		r.attend(p)
	}
	return pass
}

// flush writes what waits.
func (r *Router) flush(p *peer) {
	if p.conn == nil || len(p.out) == 0 {
		return
	}
	n, err := unix.Write(p.conn.fd, p.out)
	if err != nil {
		if err != unix.EAGAIN && err != unix.EINTR {
			r.closePeer(p, fmt.Errorf("write its frames: %w", err))
		}
		return
	}
	if n < len(p.out) {
		p.out = p.out[:copy(p.out, p.out[n:])]
		return
	}
	p.out = nil
	r.attend(p)
}

// recvBuffer is what recvmsg needs, kept so that reading allocates nothing.
type recvBuffer struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [64]byte
}

// receive reads from a peer's connection into the loop's buffer. Descriptors
// are taken from the emperor only, one at a time; fd is -1 if there is none.
// From anybody else none is even made: without a control buffer the kernel
// drops them and says MSG_CTRUNC.
func (r *Router) receive(p *peer) (n, fd int, err error) {
	m := &r.message
	m.vector.Base = &r.buf[room]
	m.vector.SetLen(len(r.buf) - room)
	m.header = unix.Msghdr{Iov: &m.vector, Iovlen: 1}
	may := p.emperor && !p.handed
	if may {
		m.header.Control = &m.control[0]
		m.header.SetControllen(len(m.control))
	}
	const flags = unix.MSG_CMSG_CLOEXEC | unix.MSG_DONTWAIT
	got, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(p.conn.fd), uintptr(unsafe.Pointer(&m.header)), flags)
	if errno != 0 {
		return 0, -1, errno
	}
	fd = -1
	if may && m.header.Controllen > 0 {
		fds := descriptors(m.control[:m.header.Controllen])
		if len(fds) == 1 && m.header.Flags&unix.MSG_CTRUNC == 0 {
			fd = fds[0]
		} else {
			closeAll(fds)
			return 0, -1, errDescriptors
		}
	}
	if m.header.Flags&unix.MSG_CTRUNC != 0 {
		return 0, -1, errDescriptors
	}
	return int(got), fd, nil
}

// descriptors returns those of a control message.
func descriptors(control []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
