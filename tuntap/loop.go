package tuntap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	room       = 16 // free bytes before each packet: for the device's header, or a frame's, without a copy
	bufferSize = room + 1<<16
	burst      = 64 // packets of one device before the others' turn
	tickMillis = 250
)

// loop is what belongs to the router's one thread. Nothing in it is locked.
type loop struct {
	poll    *poller
	peers   map[uint64]*peer
	nextID  uint64
	unknown []*peer // foreign and unregistered, oldest first
	halves  []*peer // that stand within a frame, or did so lately
	paused  []*network
	serving bool

	start   time.Time
	now     int64 // nanoseconds since start, read once a turn; never 0
	pk      packet
	batches [batches]batch
	evict   int // the batch that gave way last
	waiter
	buf     []byte
	flat    []byte // for packets of streams and of segments
	scratch []byte // for answers
	message recvBuffer
	lines   bucket         // of log lines
	closers sync.WaitGroup // goroutines that close devices
}

func (l *loop) init(p *poller) {
	l.poll = p
	l.window = defaultBusyPoll
	l.peers = make(map[uint64]*peer)
	l.buf = make([]byte, bufferSize)
	l.flat = make([]byte, bufferSize)
	for i := range l.batches {
		l.batches[i].buf = make([]byte, 0, bufferSize)
	}
	l.scratch = make([]byte, room+1500)
	l.start = time.Now().Add(-time.Second)
	l.now = int64(time.Second)
}

// Run moves packets until ctx is done and then frees everything that the
// router owns. It may be called once. An error means that the loop itself
// could not go on; no packet, peer or write error does that.
func (r *Router) Run(ctx context.Context) error {
	if err := r.mail.open(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var writer sync.WaitGroup
	writer.Go(r.writeLog)
	stop := context.AfterFunc(ctx, r.mail.poke)
	defer stop()

	var err error
	for ctx.Err() == nil && err == nil {
		var n int
		if n, err = r.wait(); err != nil {
			err = fmt.Errorf("wait for packets: %w", err)
		}
		r.now = int64(time.Since(r.start))
		r.poll.dispatch(n)
		r.tick()
	}
	err = errors.Join(err, r.free())
	close(r.pending)
	writer.Wait()
	return err
}

// timeout is for the next wait: for ever unless something has a deadline.
func (r *Router) timeout() int {
	if len(r.halves) > 0 || len(r.paused) > 0 {
		return tickMillis
	}
	return -1
}

// tick looks after deadlines.
func (r *Router) tick() {
	if len(r.halves) > 0 {
		r.expireHalves()
	}
	if len(r.paused) > 0 {
		r.resumeListeners()
	}
}

// free ends everything. The peers' addresses die with the router: no events.
func (r *Router) free() error {
	r.events = Events{}
	for _, p := range r.peers {
		r.closePeer(p, ErrClosed)
	}
	for _, n := range r.networks {
		r.closeSource(n.host)
		r.closeSource(n.listener)
	}
	r.closers.Wait()
	return errors.Join(r.mail.close(), r.poll.close())
}

func (r *Router) closeSource(s *source) {
	if s != nil {
		r.poll.remove(s)
		unix.Close(s.fd)
	}
}

func (r *Router) whenServing() uint32 {
	if r.serving {
		return unix.EPOLLIN
	}
	return 0
}

// attend watches a peer for what it may do now.
func (r *Router) attend(p *peer) {
	r.poll.want(p.dev, r.whenServing())
	var mask uint32
	if p.known && (r.serving || p.emperor) {
		mask = unix.EPOLLIN
	}
	if len(p.out) > 0 {
		mask |= unix.EPOLLOUT
	}
	r.poll.want(p.conn, mask)
}

// hostReady reads packets from the host's device.
func (n *network) hostReady(uint32) {
	n.drain()
	n.r.flushBatches()
}

func (n *network) drain() {
	r := n.r
	if n.host.mask == 0 { // not serving: only an error can have come
		n.loseHost(unix.EBADFD)
		return
	}
	for range burst {
		size, errno := rawRead(n.host.fd, r.buf[room-vnetLen:])
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return
		case errno != 0 || size < vnetLen:
			n.loseHost(errno)
			return
		}
		r.fromHost(n, r.buf[:room-vnetLen+size])
	}
}

// loseHost stops reading the host's device. The router lives on: its other
// networks, and vassal to vassal in this one, need no host.
func (n *network) loseHost(err error) {
	n.hostGone = true
	n.r.poll.remove(n.host)
	n.r.say(slog.LevelError, "the network's device is gone", slog.String("network", n.name), slog.Any("err", err))
}

// deviceReady reads packets from a handed-over device.
func (p *peer) deviceReady(uint32) {
	p.drain()
	p.net.r.flushBatches()
}

func (p *peer) drain() {
	r := p.net.r
	if p.dev.mask == 0 {
		r.closePeer(p, errDeviceGone)
		return
	}
	for range burst {
		size, errno := rawRead(p.dev.fd, r.buf[room-vnetLen:])
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return
		case errno != 0 || size < vnetLen:
			r.closePeer(p, errDeviceGone)
			return
		}
		r.fromPeer(p, r.buf[:room-vnetLen+size])
		if p.gone {
			return
		}
	}
}

// nobody is what becomes of a packet for an address of the pool that nobody
// has: its sender is told, and need not wait for a timeout.
var nobody = verdict{why: DropNoRoute, reject: true}

// fromPeer takes a packet from p all its way. framed has room before the packet,
// and the device's header at its end.
func (r *Router) fromPeer(p *peer, framed []byte) {
	n, pk := p.net, &r.pk
	why := pk.read(framed)
	p.tx.add(pk.onWire())
	if why != pass {
		n.note(p, pk, drop(why))
		return
	}
	if v := n.fromPeer(p, pk); v.why != pass {
		n.note(p, pk, v)
		r.reject(n, p, pk, v)
		return
	}
	to := n.table.owner(pk.flow.Dst)
	switch {
	case to.kind == ownerPool:
		n.note(p, pk, nobody)
		r.reject(n, p, pk, nobody)
	case to.kind == ownerPeer && n.policy.Load().cfg.Direct:
		if v := n.towards(to.peer, pk); v.why != pass {
			n.note(to.peer, pk, v)
			r.reject(n, p, pk, v)
			return
		}
		r.deliver(to.peer, framed)
	default:
		if r.coalesce(n.host, n, nil, p, framed) {
			return
		}
		if why := r.toHost(n, framed); why != pass {
			n.note(p, pk, drop(why))
		}
	}
}

// fromHost takes a packet from the host all its way.
func (r *Router) fromHost(n *network, framed []byte) {
	pk := &r.pk
	if why := pk.read(framed); why != pass {
		n.note(nil, pk, drop(why))
		return
	}
	to := n.table.owner(pk.flow.Dst)
	if to.kind == ownerPool {
		n.note(nil, pk, nobody)
		r.reject(n, nil, pk, nobody)
		return
	}
	if to.kind != ownerPeer { // not even of the pool: the host's own chatter (MLD, mDNS)
		n.note(nil, pk, verdict{why: DropNoRoute, quiet: true})
		return
	}
	if v := n.towards(to.peer, pk); v.why != pass {
		n.note(to.peer, pk, v)
		r.reject(n, nil, pk, v)
		return
	}
	r.deliver(to.peer, framed)
}

// reject answers a dropped packet where its rule says so. to is who sent it,
// nil for the host's side.
func (r *Router) reject(n *network, to *peer, pk *packet, v verdict) {
	if !v.reject {
		return
	}
	b := &n.answers
	if to != nil {
		b = &to.answers
	}
	if !b.take(r.now, rejectRate, rejectBurst) {
		return
	}
	size := pk.answer(r.scratch[room:], n.policy.Load().own[family(pk.flow.Src)], v.why)
	switch {
	case size == 0:
	case to != nil:
		r.send(to, r.scratch[:room+size])
	default:
		r.toHost(n, r.scratch[:room+size])
	}
}

// deliver sends a packet to p, now or with others, and counts what became of it.
func (r *Router) deliver(p *peer, framed []byte) {
	if r.coalesce(p.dev, p.net, p, p, framed) {
		return
	}
	if why := r.send(p, framed); why != pass {
		p.net.note(p, &r.pk, drop(why))
		return
	}
	p.rx.add(r.pk.onWire())
}

// send writes a packet to p's device or stream. It never blocks.
func (r *Router) send(p *peer, framed []byte) Reason {
	if p.dev != nil {
		r.flushFor(p.dev)
		r.poll.expect(p.dev)
		return writePacket(p.dev.fd, framed[room-vnetLen:])
	}
	return r.sendPlain(p, framed)
}

func (r *Router) toHost(n *network, framed []byte) Reason {
	if n.hostGone {
		return DropNotReady
	}
	r.flushFor(n.host)
	r.poll.expect(n.host)
	return writePacket(n.host.fd, framed[room-vnetLen:])
}

// writePacket writes one packet, with its header, to a device and says why it was not taken.
func writePacket(fd int, packet []byte) Reason {
	for {
		errno := rawWrite(fd, packet)
		switch errno {
		case 0:
			return pass
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EMSGSIZE:
			return DropFull
		case unix.EINVAL:
			return DropMalformed // the kernel's own look at it
		}
		return DropNotReady // EIO: the device is down; EBADFD: it is gone
	}
}
