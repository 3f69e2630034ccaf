package vassal

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/vault"
)

// NotifySocket is where an app tells how it is (sd_notify(3)): an abstract
// socket of its jail's network namespace, so that nobody outside reaches it.
type NotifySocket struct {
	Address string // for NOTIFY_SOCKET

	file *os.File
	over chan struct{}
}

// Bounds of what an app may say: a flood waits in the app's own queue.
const (
	maxNotification = 4096 // bytes
	notifyBurst     = 50
	notifyInterval  = 50 * time.Millisecond // for each message after the burst
)

// Notify makes a socket for a generation's words.
func (j *Jail) Notify(generation int) (*NotifySocket, error) {
	if j.Inode == 0 {
		return nil, errors.New("an app can notify only in a network namespace of its own, where no other's word can come from; give the vassal a device, or unshare = net")
	}
	s := notifySocket(generation, nil)
	err := j.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.Address})
		}
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		s.file = os.NewFile(uintptr(fd), "notify")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("socket for the app's notices: %w", err)
	}
	return s, nil
}

func notifySocket(generation int, file *os.File) *NotifySocket {
	return &NotifySocket{Address: fmt.Sprintf("@fiefdom/notify.%d", generation), file: file, over: make(chan struct{})}
}

// NotifyFile is the name of a NotifySocket's file among those that are kept.
const NotifyFile = "notify"

// Keep adds the socket to files: what an app says waits in it.
func (s *NotifySocket) Keep(files *vault.Files) error {
	if s == nil {
		return nil
	}
	return files.Add(NotifyFile, s.file)
}

// RestoreNotify goes on with the socket of a generation whose emperor was
// killed; nil: there was none.
func (j *Jail) RestoreNotify(generation int, files *vault.Files) *NotifySocket {
	f := files.Take(NotifyFile)
	if f == nil {
		return nil
	}
	return notifySocket(generation, f)
}

// Close ends Listen.
func (s *NotifySocket) Close() error {
	close(s.over)
	return s.file.Close()
}

// Listen hears what the app of that uid, or root in its jail, says until Close.
func (s *NotifySocket) Listen(uid int, heard func(text []byte)) error {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	b, oob := make([]byte, maxNotification), make([]byte, unix.CmsgSpace(unix.SizeofUcred)) // no room for descriptors: the kernel closes them
	budget, last := notifyBurst, time.Now()
	for {
		var n, oobn, flags int
		var rerr error
		err := conn.Read(func(fd uintptr) bool {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(fd), b, oob, unix.MSG_CMSG_CLOEXEC)
			return !errors.Is(rerr, unix.EAGAIN) && !errors.Is(rerr, unix.EINTR)
		})
		if err = errors.Join(err, rerr); err != nil {
			select {
			case <-s.over:
				return nil
			default:
				return err
			}
		}
		if flags&unix.MSG_TRUNC == 0 && fromApp(oob[:oobn], uid) {
			heard(b[:n])
		}
		earned := int(time.Since(last) / notifyInterval)
		last = last.Add(time.Duration(earned) * notifyInterval)
		if budget = min(notifyBurst, budget+earned) - 1; budget > 0 {
			continue
		}
		select {
		case <-time.After(notifyInterval):
		case <-s.over:
			return nil
		}
	}
}

// fromApp says whether a message's sender is the app's user or root. He is in the
// jail: its network namespace alone has the address, and sockets of that
// namespace are made nowhere else. One who was given such a socket by an app has that
// app's leave. Where he is now is not asked: systemd-notify has ended when
// its word is read.
func fromApp(oob []byte, uid int) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return false
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == uid)
}
