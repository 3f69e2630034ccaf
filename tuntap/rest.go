package tuntap

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	restTime   = 50 * time.Microsecond
	floodEvery = int64(8 * time.Microsecond) // between two datagrams, at most, is a flood
	floodTurns = 8                           // in a row
)

// pace is how fast small datagrams come from a device. A sender in full flood
// wakes whoever waits for its packets with each of them: that costs it a third
// of its time, and where both share a CPU the router is given two or three
// datagrams at a time, too few to merge. So a device that is in a flood rests:
// for a while nobody waits for its packets, which gather in its queue (of 1000,
// and 50 µs are 25 of them), and other devices are served as ever. Network cards
// do the same with their interrupts.
type pace struct {
	merged int   // datagrams that could be merged, since the device was last empty
	empty  int64 // the shard's clock then
	floods int   // times in a row that it was empty after a flood
}

// flooding learns that the device was read until it was empty, and says whether
// it is in a flood.
func (p *pace) flooding(now int64) bool {
	since := now - p.empty
	if since == 0 {
		return false // again in the same turn: it is not over
	}
	if p.merged > 1 && since < int64(p.merged)*floodEvery {
		p.floods++
	} else {
		p.floods = 0
	}
	p.merged, p.empty = 0, now
	return p.floods >= floodTurns
}

// emptied is told that a device was read until it was empty.
func (s *shard) emptied(dev *source) {
	dev.merged += s.merged
	if !dev.flooding(s.now) {
		return
	}
	if len(s.resting) == 0 {
		s.rested = s.now
	}
	s.poll.want(dev, 0)
	s.resting = append(s.resting, dev)
}

// nap waits for the devices that do not rest, as long as the others do.
func (s *shard) nap() (int, error) {
	n, err := s.poll.waitFor(restTime)
	s.endRest(s.rested)
	return n, err
}

// endRest has the devices read that rest since then, or earlier.
func (s *shard) endRest(since int64) {
	if len(s.resting) == 0 || s.rested > since {
		return
	}
	for _, dev := range s.resting {
		if s.poll.has(dev) {
			s.poll.want(dev, unix.EPOLLIN)
			s.poll.expect(dev)
		}
	}
	s.resting = s.resting[:0]
}

// waitFor is wait with a timeout below a millisecond. Kernels before 5.11 can
// not, nor may we in a container whose seccomp list is older; there it is one.
func (p *poller) waitFor(d time.Duration) (int, error) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep), uintptr(unsafe.Pointer(&p.batch[0])), uintptr(len(p.batch)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	case unix.ENOSYS, unix.EPERM:
		return p.wait(1)
	}
	return 0, errno
}
