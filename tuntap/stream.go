package tuntap

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outLimit bounds what waits for a peer that does not read, in bytes; a bundle fits.
const outLimit = 256 << 10

var (
	errDeviceGone  = errors.New("its device is gone")
	errPeerClosed  = errors.New("it closed the connection")
	errDescriptors = errors.New("it sent descriptors, which only the emperor may")
	errHalfFrame   = errors.New("it left half a frame standing")
	errTooMany     = errors.New("too many peers without an address")
)

// ErrGoodbye is why a peer closed whose device the emperor took back.
var ErrGoodbye = errors.New("the emperor took it back")

// stream is a peer's connection: its frames, or its life line. The first shard
// reads, opens and closes it; any shard may send frames to it.
type stream struct {
	mu   sync.Mutex // guards the rest, and the connection's mask; the first shard may look at conn without it
	conn *source    // nil when it is over
	out  []byte     // waits to be written
}

// attend watches a peer for what it may do now.
func (r *Router) attend(p *peer) {
	if p.dev != nil {
		s, mask := p.shard, r.whenServing()
		r.shards[0].tell(s, func() { s.poll.want(p.dev, mask) })
	}
	var mask uint32
	if r.mayRead(p) {
		mask = unix.EPOLLIN
	}
	p.stream.mu.Lock()
	defer p.stream.mu.Unlock()
	if len(p.stream.out) > 0 {
		mask |= unix.EPOLLOUT
	}
	r.shards[0].poll.want(p.stream.conn, mask)
}

// mayRead says that a peer's connection may be read now.
func (r *Router) mayRead(p *peer) bool { return p.known && (r.serving || p.emperor) }

// hangUp closes a peer's connection.
func (r *Router) hangUp(p *peer) {
	p.stream.mu.Lock()
	conn := p.stream.conn
	p.stream.conn, p.stream.out = nil, nil
	p.in, p.hand.doc, p.half = frameReader{}, nil, 0
	p.stream.mu.Unlock()
	r.shards[0].closeSource(conn)
}

// streamReady reads and writes a stream of frames, or hears of a life line.
func (p *peer) streamReady(events uint32) {
	r := p.net.r
	if events&unix.EPOLLOUT != 0 {
		r.flush(p)
	}
	switch {
	case p.gone.Load() || p.stream.conn == nil:
	case r.mayRead(p):
		if events&^unix.EPOLLOUT != 0 {
			r.readStream(p)
			r.shards[0].endDrain()
		}
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0: // it waits to be identified or served
		r.closePeer(p, errPeerClosed)
	}
}

// readStream reads once and takes every frame that is complete. One read a
// turn is a share that no peer can stretch.
func (r *Router) readStream(p *peer) {
	if p.unproved {
		r.readCredentials(p)
		return
	}
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
	for b := r.shards[0].buf[room : room+n]; len(b) > 0; {
		frame, rest, err := p.in.next(b)
		if err != nil {
			r.closePeer(p, err)
			return
		}
		if frame == nil {
			break
		}
		if r.takeFrame(p, frame); p.gone.Load() {
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
		r.mindLine(p, kind, payload)
	case isHello(frame): // where they are asked for, they were read before the first frame
	case p.emperor && (kind == kindHand || kind == kindPart):
		r.takeHandover(p, kind, payload)
	case kind == kindRules:
		block := parseRuleBlock(payload)
		p.block.Store(&block)
	case len(payload) == 0: // uWSGI closes the peer at the next read; it carries nothing
	default:
		r.show(p)
		s := r.shards[0]
		if !r.serving {
			s.note(p.net, p, &s.pk, drop(DropNotReady))
			return
		}
		clear(s.flat[room-vnetLen : room])
		s.fromPeer(p, s.flat[:room+copy(s.flat[room:], payload)])
	}
}

// streamEnded is told that nothing comes any more. A life line that ends
// without a goodbye means that the emperor died: nobody dies with it.
func (r *Router) streamEnded(p *peer, err error) {
	if p.handed {
		r.hangUp(p)
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
	if p.handed || !p.in.partial() && len(p.hand.doc) == 0 { // the emperor's own may be slow
		p.half = 0
		return
	}
	if cut || p.half == 0 {
		p.half = r.shards[0].now
	}
	if !p.onTick {
		p.onTick = true
		r.halves = append(r.halves, p)
	}
}

// expireHalves closes peers whose half frame stands for too long.
func (r *Router) expireHalves() {
	r.halves = slices.DeleteFunc(r.halves, func(p *peer) bool {
		if !p.gone.Load() && p.half != 0 && r.shards[0].now-p.half >= r.half {
			r.closePeer(p, errHalfFrame)
		}
		p.onTick = !p.gone.Load() && p.half != 0
		return !p.onTick
	})
}

// sendPlain sends a packet to a stream, whose frames cannot say what the kernel
// left undone: it is done here.
func (s *shard) sendPlain(p *peer, framed []byte) Reason {
	o := &s.pk.undone
	switch {
	case o.flags|o.kind == 0:
		return s.gather(p, framed)
	case o.kind == vnetWhole:
		o.finish(framed[room:])
		return s.gather(p, framed)
	}
	for i := 0; ; i++ {
		n := s.pk.segment(s.flat[room:], i)
		if n == 0 {
			return pass
		}
		if why := s.gather(p, s.flat[:room+n]); why != pass {
			return why
		}
	}
}

// flush writes what waits.
func (r *Router) flush(p *peer) {
	if err := p.stream.flush(); err != nil {
		r.closePeer(p, fmt.Errorf("write its frames: %w", err))
	}
}

func (t *stream) flush() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil || len(t.out) == 0 {
		return nil
	}
	n, err := unix.Write(t.conn.fd, t.out)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case n < len(t.out):
		t.out = t.out[:copy(t.out, t.out[n:])]
		return nil
	}
	t.out = nil
	t.conn.home.want(t.conn, t.conn.mask&^unix.EPOLLOUT)
	return nil
}

// recvBuffer is what recvmsg needs, kept so that reading allocates nothing.
type recvBuffer struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [64]byte
}

// receive reads from a peer's connection into the first shard's buffer. Descriptors
// are taken from the emperor only, one at a time; fd is -1 if there is none.
// From anybody else none is even made: without a control buffer the kernel
// drops them and says MSG_CTRUNC.
func (r *Router) receive(p *peer) (n, fd int, err error) {
	m := &r.message
	m.vector.Base = &r.shards[0].buf[room]
	m.vector.SetLen(bufferSize - room)
	m.header = unix.Msghdr{Iov: &m.vector, Iovlen: 1}
	may := p.emperor && !p.handed
	if may {
		m.header.Control = &m.control[0]
		m.header.SetControllen(len(m.control))
	}
	const flags = unix.MSG_CMSG_CLOEXEC | unix.MSG_DONTWAIT
	got, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(p.stream.conn.fd), uintptr(unsafe.Pointer(&m.header)), flags)
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
