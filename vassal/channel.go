package vassal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Order is what the emperor says to a vassal that speaks uWSGI's emperor
// protocol, one byte a message.
type Order byte

// The orders.
const (
	OrderStop       Order = 0
	OrderReload     Order = 1
	OrderStopGently Order = 2 // after the requests that are being answered
)

// Notice is what such a vassal says to the emperor, one byte a message.
type Notice byte

// The notices.
const (
	NoticeReady     Notice = 1  // it has started, or has reloaded itself
	NoticeConfig    Notice = 2  // it wants its settings again
	NoticeAccepting Notice = 5  // it takes requests
	NoticeLoyal     Notice = 17 // it has answered a request
	NoticeStop      Notice = 22 // it wants to be stopped
	NoticeHeartbeat Notice = 26 // it lives, and will say so again
	NoticeReinforce Notice = 30 // it wants more of its kind
)

// ExitExile is the exit code of a vassal that does not want to be started
// again.
const ExitExile = 26

// ExitNoApp is the exit code of a uwsgi with need-app that has no app.
const ExitNoApp = 22

// What Listen takes of a vassal: more waits in the vassal's own buffer, and
// then the vassal waits. A real one says some bytes a second at most.
const (
	maxNotices   = 64 // in one message; the rest of a longer one is lost
	noticeBudget = 64 // bytes in noticeWindow
	noticeWindow = 100 * time.Millisecond
)

// Channel is the emperor's end of the socket pair that a vassal finds by
// UWSGI_EMPEROR_FD. One goroutine may Listen, any may Order.
//
// It is a pair of datagram sockets. A stream would tell the vassal when the
// emperor's end is closed, and a uWSGI that reads an end of file kills its
// workers and exits: it would die with an emperor that was killed. An end of
// a datagram pair is never at its end (unix(7)); after the emperor's death
// the vassal's reads wait, its writes fail with ECONNREFUSED, which a uWSGI
// logs, and its app goes on. A duplicate of our end in somebody else's hands
// would do the same only until its buffer is full: then a uWSGI's master
// would block in its next heartbeat.
type Channel struct {
	file *os.File
	once sync.Once
	done chan struct{} // closed with it
}

// newChannel makes the pair: ours, and the file for the vassal.
func newChannel() (*Channel, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair of the emperor protocol: %w", err)
	}
	// The vassal's end blocks, as vassals expect; its flags are its own.
	if err := unix.SetNonblock(fds[1], false); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return &Channel{file: os.NewFile(uintptr(fds[0]), "channel"), done: make(chan struct{})}, os.NewFile(uintptr(fds[1]), "channel"), nil
}

// Order says one byte to the vassal. It never waits: a vassal that does not
// read has a full buffer some day, which is an error.
func (c *Channel) Order(o Order) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = unix.Sendmsg(int(fd), []byte{byte(o)}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if err := errors.Join(err, result); err != nil {
		return fmt.Errorf("emperor protocol: order %d: %w", o, err)
	}
	return nil
}

// Listen hands every byte that the vassal says to heard, as fast as heard
// takes them but no faster than the budget, until the channel is closed or
// the vassal has broken it. Descriptors that come along are dropped by the
// kernel.
func (c *Channel) Listen(heard func(Notice)) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return c.ended(err)
	}
	var buf [maxNotices]byte
	left, window := noticeBudget, time.Now()
	for {
		var n int
		var result error
		err := raw.Read(func(fd uintptr) bool {
			n, _, result = unix.Recvfrom(int(fd), buf[:], 0)
			return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
		})
		if err := errors.Join(err, result); err != nil {
			return c.ended(err)
		}
		for _, b := range buf[:n] {
			heard(Notice(b))
		}
		if time.Since(window) > noticeWindow {
			left, window = noticeBudget, time.Now()
		}
		if left -= max(n, 1); left <= 0 {
			select {
			case <-time.After(noticeWindow):
			case <-c.done:
				return nil
			}
		}
	}
}

// ended tells our own end of the channel, which is no error, from the vassal's
// doing: it can connect its socket to another (ECONNRESET here).
func (c *Channel) ended(err error) error {
	select {
	case <-c.done:
		return nil
	default:
		return fmt.Errorf("emperor protocol: %w", err)
	}
}

// close ends Listen.
func (c *Channel) close() (err error) {
	c.once.Do(func() {
		close(c.done)
		err = c.file.Close()
	})
	return err
}

// channelFD is the vassal's descriptor of its channel, where the init stage
// has it too.
const channelFD = 4

// ProtocolEnv are the variables of an emperor protocol: those of the emperor's
// own starter, which may have been a uWSGI, are not the vassal's.
var ProtocolEnv = []string{"UWSGI_EMPEROR_FD", "UWSGI_EMPEROR_FD_CONFIG", "UWSGI_EMPEROR_PROXY", "UWSGI_BROODLORD_NUM", "UWSGI_RELOADS", "NOTIFY_SOCKET"}

func clearProtocolEnv() error {
	var errs []error
	for _, name := range ProtocolEnv {
		errs = append(errs, os.Unsetenv(name))
	}
	return errors.Join(errs...)
}

// giveChannel lets the channel through exec and says where it is.
func giveChannel() error {
	if _, err := unix.FcntlInt(channelFD, syscall.F_SETFD, 0); err != nil {
		return fmt.Errorf("emperor protocol: %w", err)
	}
	return os.Setenv("UWSGI_EMPEROR_FD", fmt.Sprint(channelFD))
}
