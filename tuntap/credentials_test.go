package tuntap

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

func credible() NetworkConfig {
	cfg := native()
	cfg.Credentials = true
	return cfg
}

// The ids that a device begins with are those in the stats; then it is as any other.
func TestDeviceBeginsWithItsCredentials(t *testing.T) {
	nettest.Root(t) // who may speak for other ids
	for name, together := range map[string]bool{"then its packets": false, "its packets at once": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, credible(), foreignOnly)
			f := w.connect()
			ids := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: 2001, Gid: 2002})
			if _, _, err := f.conn.WriteMsgUnix([]byte(hello), ids, nil); err != nil {
				t.Fatal(err)
			}
			told := func() bool { s, _ := w.find(""); return s.UID == 2001 && s.GID == 2002 && s.PID == int32(os.Getpid()) }
			if !together {
				nettest.Eventually(t, 5*time.Second, "the ids to be told", told)
			}
			p := udp(blog, internet, 53)
			f.send(p)
			if h := w.await("registered"); h.addr != blog {
				t.Errorf("registered %v", h.addr)
			}
			if got := w.host.Receive(t); string(got) != string(p) {
				t.Errorf("the host got % x", got)
			}
			if !told() {
				t.Errorf("told %+v", w.stats(""))
			}
		})
	}
}

func TestDeviceWithoutCredentialsIsClosed(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	packet := framed(kindData, udp(blog, internet, 53))
	for _, c := range []struct {
		name   string
		begin  []byte
		rights []byte
		want   error
	}{
		{"a packet", packet, nil, errCredentials},
		{"a rule block", framed(kindRules, nil), nil, errCredentials},
		{"half of the greeting", []byte(hello[:6]), nil, errCredentials},
		{"another text", []byte("uwsgi-tuntop"), nil, errCredentials},
		{"a descriptor with the greeting", []byte(hello), unix.UnixRights(int(file.Fd())), errDescriptors},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, credible(), foreignOnly)
			f := w.connect()
			if _, _, err := f.conn.WriteMsgUnix(c.begin, c.rights, nil); err != nil {
				t.Fatal(err)
			}
			f.awaitEOF(5 * time.Second)
			if h := w.await("closed"); !errors.Is(h.err, c.want) {
				t.Errorf("closed with %v; want %v", h.err, c.want)
			}
			if !w.host.Empty() {
				t.Error("the host got a packet")
			}
		})
	}
}

// The emperor's devices are known without.
func TestHandOverNeedsNoCredentials(t *testing.T) {
	w := newWorld(t, credible())
	end := w.vassal("blog", blog)
	end.Send(t, tuntest.Echo(blog, gateway, 1, 2))
	w.host.Receive(t)
}
