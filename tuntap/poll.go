package tuntap

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is a shard's epoll set (epoll(7)), level-triggered. The shard owns it:
// other threads may make sources for it, but not add them.
type poller struct {
	ep      int
	sources []*source // by slot
	free    []int
	freed   []int // in this turn: events of the same batch may still name them
	batch   [128]unix.EpollEvent
	soon    []*source // were written to: their answers may be there already
	again   []*source
}

// source is a descriptor that is in a set, or will be. ready is called on the
// set's shard; slot, mask and soon belong to it, but for a stream's mask (see
// stream).
type source struct {
	fd    int
	cuts  bool // a device whose kernel cuts large UDP packets
	home  *poller
	ready func(events uint32)
	slot  int
	mask  uint32
	soon  bool // in the poller's list
	pace
}

func newPoller() (*poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a shard's epoll set: %w", err)
	}
	return &poller{ep: ep}, nil
}

// source makes one for the set, which does not watch it yet.
func (p *poller) source(fd int, ready func(events uint32)) *source {
	return &source{fd: fd, home: p, ready: ready}
}

// add watches a source. EPOLLERR and EPOLLHUP are always told, whatever the mask.
func (p *poller) add(s *source, mask uint32) error {
	s.mask = mask
	if n := len(p.free); n > 0 {
		s.slot, p.free = p.free[n-1], p.free[:n-1]
		p.sources[s.slot] = s
	} else {
		s.slot = len(p.sources)
		p.sources = append(p.sources, s)
	}
	ev := unix.EpollEvent{Events: mask, Fd: int32(s.slot)}
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		p.sources[s.slot] = nil
		p.free = append(p.free, s.slot)
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// want changes what a source is watched for. A nil source is none.
func (p *poller) want(s *source, mask uint32) {
	if s == nil || s.mask == mask {
		return
	}
	s.mask = mask
	ev := unix.EpollEvent{Events: mask, Fd: int32(s.slot)}
	// It can not fail: the descriptor is in the set, and no memory is needed.
	_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_MOD, s.fd, &ev)
}

// remove forgets a source; closing it is the caller's. It must come first: the
// set watches open files, and others may share this one.
func (p *poller) remove(s *source) {
	if !p.has(s) {
		return
	}
	_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, s.fd, nil)
	p.sources[s.slot] = nil
	p.freed = append(p.freed, s.slot)
}

func (p *poller) has(s *source) bool { return s.slot < len(p.sources) && p.sources[s.slot] == s }

// wait waits for events, timeout milliseconds at most (-1: for ever), and
// returns how many there are.
func (p *poller) wait(timeout int) (int, error) {
	n, err := unix.EpollWait(p.ep, p.batch[:], timeout)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return n, err
}

// look returns how many events there are now.
func (p *poller) look() (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.batch[0])), uintptr(len(p.batch)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// dispatch calls the sources of the first n events.
func (p *poller) dispatch(n int) {
	for i := range n {
		if s := p.sources[p.batch[i].Fd]; s != nil {
			s.ready(p.batch[i].Events)
		}
	}
	p.dispatchExpected()
	p.free = append(p.free, p.freed...)
	p.freed = p.freed[:0]
}

// expect has a source read before the next wait. A write to a device runs the
// receiver's whole stack, so that its answer is often there when the write
// returns: reading it now saves a sleep and a wakeup. Another shard's source
// wakes that shard by itself.
func (p *poller) expect(s *source) {
	if s.home == p && !s.soon {
		s.soon = true
		p.soon = append(p.soon, s)
	}
}

// answerRounds bounds how long answers to answers keep the others waiting.
const answerRounds = 16

// dispatchExpected reads what was expected, and what that leads to.
func (p *poller) dispatchExpected() {
	for range answerRounds {
		if len(p.soon) == 0 {
			return
		}
		p.soon, p.again = p.again[:0], p.soon
		for _, s := range p.again {
			s.soon = false
			if p.has(s) && s.mask&unix.EPOLLIN != 0 {
				s.ready(unix.EPOLLIN)
			}
		}
	}
	for _, s := range p.soon {
		s.soon = false // the set tells, if there is anything
	}
	p.soon = p.soon[:0]
}

func (p *poller) close() error {
	p.sources = slices.Delete(p.sources, 0, len(p.sources))
	return unix.Close(p.ep)
}
