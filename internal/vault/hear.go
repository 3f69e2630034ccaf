package vault

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ear reads a datagram socket on behalf of an emperor who is gone. Who writes
// to it would wait for ever when its buffer is full (unix(7)).
type ear struct {
	file *os.File
	done chan struct{}
}

// maxHeard bounds what is remembered, in bytes. A byte that repeats the one
// before it, as heartbeats do, is remembered once.
const maxHeard = 256

// listen begins to read what the item is to hear, if anything.
func (i *item) listen() {
	own := i.fd(i.hear)
	if i.hear == "" || own < 0 {
		return
	}
	fd, err := unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return
	}
	e := &ear{file: os.NewFile(uintptr(fd), i.hear), done: make(chan struct{})}
	i.ear = e
	go func() { // deafen waits for it
		defer close(e.done)
		i.heard = e.read(i.heard)
	}()
}

// deafen ends that; the emperor reads himself.
func (i *item) deafen() {
	if i.ear == nil {
		return
	}
	_ = i.ear.file.SetReadDeadline(time.Unix(1, 0))
	<-i.ear.done
	_ = i.ear.file.Close()
	i.ear = nil
}

func (e *ear) read(heard []byte) []byte {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return heard
	}
	var buf [64]byte
	for {
		var n int
		var result error
		err := raw.Read(func(fd uintptr) bool {
			n, _, result = unix.Recvfrom(int(fd), buf[:], 0)
			return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
		})
		if err != nil || result != nil {
			return heard
		}
		for _, b := range buf[:n] {
			if len(heard) < maxHeard && (len(heard) == 0 || heard[len(heard)-1] != b) {
				heard = append(heard, b)
			}
		}
	}
}
