package main

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// T10: descriptors that nobody asked for are closed, by every socket of ours, whoever
// sends however many.
func TestDescriptorsAtTheDoorsSoak(t *testing.T) {
	t.Parallel()
	nettest.Program(t, "systemd-notify")
	r := newRealm(t, doorsEmperor, map[string]string{"blog": "[uwsgi]\ncommand = sh -c 'systemd-notify --ready; exec AGENT'\nready = notify\n"})
	blog := r.reach("blog")
	r.awaitNames(blog)
	files := r.openFiles()
	for path := range ownDoors {
		kind := "unix"
		if strings.HasSuffix(path, "exec.sock") || strings.HasSuffix(path, "vault.sock") {
			kind = "unixpacket"
		}
		r.flood(func() (net.Conn, error) { return net.Dial(kind, r.Path(path)) })
	}
	jail := &nettest.NS{Handle: r.jailOf(blog)}
	r.flood(func() (c net.Conn, err error) {
		jail.Do(t, func() { c, err = net.Dial("unixgram", "@fiefdom/notify.1") })
		return c, err
	})
	r.awaitFiles(files)
	if !r.answers(blog.Addresses[0]) {
		t.Error("the vassal is not reached")
	}
	r.mustRun("exec", "blog", "--", "true")
}

// flood sends messages with as many descriptors as the kernel takes.
func (r *realm) flood(dial func() (net.Conn, error)) {
	r.t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		r.t.Fatal(err)
	}
	defer null.Close()
	rights := unix.UnixRights(slices.Repeat([]int{int(null.Fd())}, 253)...)
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	// 40 of them are 10,000 descriptors on their way. Beyond 20,000 no other process of
	// this user could send any from a user namespace (RLIMIT_NOFILE, unix(7)).
	sent, count := 0, scaled(40, 1000)
	for range 20 * count {
		if c == nil {
			if c, err = dial(); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			r.t.Fatal(err)
		}
		err = sendRights(c, rights)
		switch {
		case err == nil:
			if sent++; sent == count {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return // nobody reads what is sent before there is room
		case errors.Is(err, unix.ETOOMANYREFS): // those on the way are taken first
			time.Sleep(time.Millisecond)
		default: // it has hung up
			c.Close()
			c = nil
		}
	}
	r.t.Errorf("%d of %d messages were sent: %v", sent, count, err)
}

// sendRights sends a byte with descriptors, where it may have to wait until the
// connection's deadline.
func sendRights(c net.Conn, rights []byte) error {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		result = unix.Sendmsg(int(fd), []byte("x"), rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(result, unix.EAGAIN)
	})
	return errors.Join(err, result)
}
