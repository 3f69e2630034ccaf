package vassal

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A word counts by the jail that its socket was made in and by its sender's user;
// what has become of the sender since, who may have ended, is nobody's business.
func TestNotifySocketIsReachedFromItsJail(t *testing.T) {
	j := newJail(t)
	s, err := j.Notify(1)
	if err != nil {
		t.Fatal(err)
	}
	heard, done := make(chan string, 4), make(chan error, 1)
	go func() { done <- s.Listen(2001, func(text []byte) { heard <- string(text) }) }()
	send := func(uid uint32, text string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cred := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uid, Gid: 0})
		return unix.Sendmsg(fd, []byte(text), cred, &unix.SockaddrUnix{Name: s.Address}, 0)
	}
	if err := send(0, "from the host"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("from the host: %v", err)
	}
	// This process is none of the jail's by the time it is looked at; its sockets are.
	for _, m := range []struct {
		uid  uint32
		text string
	}{{2002, "a stranger"}, {2001, "the app"}, {0, "root"}} {
		if err := j.Do(func() error { return send(m.uid, m.text) }); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join([]string{<-heard, <-heard}, ", "); got != "the app, root" {
		t.Errorf("heard %s", got)
	}
	if err := errors.Join(s.Close(), <-done); err != nil {
		t.Error(err)
	}
}
