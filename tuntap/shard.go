package tuntap

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	room       = 16 // free bytes before each packet: for the device's header, or a frame's, without a copy
	bufferSize = room + 1<<16
	burst      = 64 // packets of one device before the others' turn
	tickMillis = 250
)

// shard is what belongs to one thread of the router. Nothing in it is locked:
// others reach it through its mailbox. A device is read by one shard, which
// keeps its packets' order, and written by any.
type shard struct {
	r       *Router
	poll    *poller
	mail    *mailbox
	devices int // that it reads; counted by the first shard

	start     time.Time
	now       int64 // nanoseconds since start, read once a turn; never 0
	pk        packet
	batches   [batches]batch
	open      int // batches that hold something
	evict     int // the batch that gave way last
	bundles   [bundles]bundle
	bundled   int       // bundles that hold something
	displaced int       // the bundle that gave way last
	merged    int       // datagrams of this drain that could be merged
	resting   []*source // devices in a flood (see pace)
	rested    int64     // when the first of them began to rest
	waiter

	sender    farEnd // of the datagram that was read last
	senderLen uint32

	buf     []byte
	flat    []byte // for packets of streams and of segments
	scratch []byte // for answers
}

// newShard makes one more shard of r. Their clocks are one.
func newShard(r *Router, start time.Time) (*shard, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	m, err := newMailbox()
	if err != nil {
		_ = p.close()
		return nil, err
	}
	if err := p.add(p.source(m.fd, func(uint32) { m.run() }), unix.EPOLLIN); err != nil {
		_, _ = m.close(), p.close()
		return nil, err
	}
	s := &shard{
		r: r, poll: p, mail: m, start: start, now: int64(time.Since(start)),
		buf: make([]byte, bufferSize), flat: make([]byte, bufferSize), scratch: make([]byte, room+1500),
	}
	for i := range s.batches {
		s.batches[i].buf = make([]byte, 0, bufferSize)
	}
	for i := range s.bundles {
		s.bundles[i].buf = make([]byte, 0, bundleBytes)
	}
	return s, nil
}

// run moves packets until ctx is done. It keeps its thread.
func (s *shard) run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Or the kernel adds 50 µs to each rest. An error costs no more than that.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Microsecond), 0, 0, 0)
	for ctx.Err() == nil {
		n, err := s.wait()
		if err != nil {
			return fmt.Errorf("wait for packets: %w", err)
		}
		s.now = int64(time.Since(s.start))
		s.poll.dispatch(n)
		if s.isFirst() {
			s.r.tick()
		}
	}
	return nil
}

// timeout is for the next wait: for ever unless something has a deadline.
func (s *shard) timeout() int {
	if s.isFirst() && s.r.hasDeadlines() {
		return tickMillis
	}
	return -1
}

func (s *shard) isFirst() bool { return s == s.r.shards[0] }

// tell has fn run on another shard, soon, or on this one at once.
func (s *shard) tell(to *shard, fn func()) {
	if s == to {
		fn()
		return
	}
	to.mail.post(fn)
}

func (s *shard) closeSource(c *source) {
	if c != nil {
		s.poll.remove(c)
		unix.Close(c.fd)
	}
}
