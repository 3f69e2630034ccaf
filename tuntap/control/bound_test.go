package control

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"fiefdom/internal/nettest"
)

func TestBound(t *testing.T) {
	nettest.Root(t)
	dir, err := os.MkdirTemp("", "fiefdom-bound-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "there")
	unixSocket, other := listen(t, here), listen(t, there)
	tcp := func(address string) *os.File {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	ns := nettest.NewNS(t)
	var loopback, every, udp, outside *os.File
	outside = tcp("127.0.0.1:0")
	ns.Do(t, func() {
		loopback, every = tcp("127.0.0.1:7001"), tcp(":7002")
		c, err := net.ListenPacket("udp4", "127.0.0.1:7001")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if udp, err = c.(*net.UDPConn).File(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { udp.Close() })
	has, err := boundTo(int(outside.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name    string
		file    *os.File
		network string
		address string
		want    bool
	}{
		{"a unix socket", unixSocket, "unix", here, true},
		{"another's path", other, "unix", here, false},
		{"a path without a socket", unixSocket, "unix", dir + "/none", false},
		{"nothing", nil, "unix", here, false},
		{"no socket", null, "unix", here, false},
		{"no socket at an address", null, "tcp", "127.0.0.1:7001", false},
		{"loopback", loopback, "tcp", "127.0.0.1:7001", true},
		{"by name", loopback, "tcp", "localhost:7001", true},
		{"another port", loopback, "tcp", "127.0.0.1:7002", false},
		{"every address", every, "tcp", ":7002", true},
		{"one of them", every, "tcp", "127.0.0.1:7002", false},
		{"UDP", udp, "udp4", "127.0.0.1:7001", true},
		{"UDP for TCP", udp, "tcp", "127.0.0.1:7001", false},
		{"TCP for UDP", loopback, "udp4", "127.0.0.1:7001", false},
		{"unix for TCP", unixSocket, "tcp", "127.0.0.1:7001", false},
		{"another namespace", outside, "tcp", has.String(), false},
	} {
		ns.Do(t, func() {
			if got := Bound(c.file, c.network, c.address); got != c.want {
				t.Errorf("%s: %v", c.name, got)
			}
		})
	}
	if got := UnixName(unixSocket); got != here {
		t.Errorf("name %q", got)
	}
	if err := os.Rename(there, here); err != nil {
		t.Fatal(err)
	}
	if Bound(unixSocket, "unix", here) {
		t.Error("somebody else's file is there")
	}
}
