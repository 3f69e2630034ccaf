package tuntap

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	floodEvery = int64(8 * time.Microsecond) // between two datagrams, or less, is a flood
	floodTurns = 8                           // in a row
	restTime   = 20 * time.Microsecond       // and the kernel's timer slack, 50 µs
)

// pace is how fast small datagrams come from a device.
type pace struct {
	merged int   // datagrams since the device was last empty
	empty  int64 // the shard's clock then
	floods int   // times in a row that it was empty after a flood
}

// emptied is told that a device was read until it was empty.
func (s *shard) emptied(dev *source) {
	dev.merged += s.merged
	since := s.now - dev.empty
	if since == 0 {
		return
	}
	if dev.merged > 1 && since < int64(dev.merged)*floodEvery {
		dev.floods++
	} else {
		dev.floods = 0
	}
	dev.merged, dev.empty = 0, s.now
	if dev.floods >= floodTurns {
		s.poll.want(dev, 0)
		s.resting = append(s.resting, dev)
	}
}

// nap waits for the devices that do not rest, and then ends the rest of the
// others.
func (s *shard) nap() (int, error) {
	n, err := s.poll.waitFor(restTime)
	for _, dev := range s.resting {
		if s.poll.sources[dev.slot] == dev {
			s.poll.want(dev, unix.EPOLLIN)
			s.poll.expect(dev)
		}
	}
	s.resting = s.resting[:0]
	return n, err
}

// waitFor is wait for a time that is shorter than a millisecond.
func (p *poller) waitFor(d time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(d))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep), uintptr(unsafe.Pointer(&p.batch[0])), uintptr(len(p.batch)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}
