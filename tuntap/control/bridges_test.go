package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

// bridgeRig is a jail with a device and a router of uWSGI's kind, played by the test.
type bridgeRig struct {
	jail      *nettest.NS
	dev       *tuntap.Device
	socket    string
	listener  *net.UnixListener
	bridges   *Bridges
	announced chan netip.Addr
	lost      chan string
}

func newBridgeRig(t *testing.T) *bridgeRig {
	t.Helper()
	r := &bridgeRig{
		jail: nettest.NewNS(t), socket: filepath.Join(t.TempDir(), "s"),
		announced: make(chan netip.Addr, 8), lost: make(chan string, 8),
		bridges: &Bridges{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), UID: 65520, GID: 65520},
	}
	nettest.NoLeaks(t)
	r.jail.Do(t, func() {
		var err error
		if r.dev, err = tuntap.OpenPlainDevice("eth0"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { r.dev.Close() })
	r.jail.Run(t, "ip", "address", "add", "10.9.0.7/16", "dev", "eth0")
	r.jail.Run(t, "ip", "link", "set", "eth0", "up")
	r.listen(t)
	return r
}

// listen has the router listen.
func (r *bridgeRig) listen(t *testing.T) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	r.listener = l
	t.Cleanup(func() { l.Close() })
}

func (r *bridgeRig) start(t *testing.T) *Bridge {
	t.Helper()
	b, err := r.bridges.Start(BridgeConfig{
		Vassal: "blog", Device: r.dev, Socket: r.socket,
		Announced: func(a tuntap.Announcement) { r.announced <- a.Src }, Lost: func(why string) { r.lost <- why },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// accept is the next connection, with a deadline.
func (r *bridgeRig) accept(t *testing.T) *net.UnixConn {
	t.Helper()
	if err := r.listener.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := r.listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ping answers an echo request of the jail with the router's hands.
func (r *bridgeRig) ping(t *testing.T, c *net.UnixConn) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- answerEcho(c) }()
	r.jail.Run(t, "ping", "-c", "1", "-W", "5", "10.9.0.1")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// answerEcho reads frames until an echo request with data comes, and answers it.
func answerEcho(c *net.UnixConn) error {
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		if n < 4+20+8+1 || b[4]>>4 != 4 || b[4+20] != 8 {
			continue
		}
		f := b[:n]
		src := slices.Clone(f[4+12 : 4+16])
		copy(f[4+12:], f[4+16:4+20])
		copy(f[4+16:], src)
		f[4+20] = 0
		// From type 8 to 0 the checksum grows by 8 in its first byte (RFC 1624).
		s := uint32(f[4+22])<<8 | uint32(f[4+23])
		s += 8 << 8
		s = s&0xffff + s>>16
		f[4+22], f[4+23] = byte(s>>8), byte(s)
		_, err = c.Write(f)
		return err
	}
}

// awaitFrame reads until a frame came that begins as an IPv4 packet from the jail.
func awaitFrame(t *testing.T, c *net.UnixConn) []byte {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestBridgeLivesThroughItsRouter(t *testing.T) {
	nettest.Root(t)
	r := newBridgeRig(t)
	b := r.start(t)
	c := r.accept(t)
	r.ping(t, c)
	if a := <-r.announced; a != netip.MustParseAddr("10.9.0.7") || b.Trouble() != "" {
		t.Errorf("announced %v, trouble %q", a, b.Trouble())
	}
	// A bad frame costs the connection, and nothing else.
	if _, err := c.Write([]byte{0, 0xff, 0xff, 0}); err != nil {
		t.Fatal(err)
	}
	c = r.accept(t)
	// It says at once who it is.
	if f := awaitFrame(t, c); len(f) != 4+28 || string(f[4+12:4+20]) != string([]byte{10, 9, 0, 7, 10, 9, 0, 1}) {
		t.Errorf("first frame % x", f)
	}
	r.ping(t, c)
	// The router goes and stays away for a while.
	r.listener.Close()
	c.Close()
	nettest.Eventually(t, 10*time.Second, "the trouble shows", func() bool { return strings.Contains(b.Trouble(), "no such file") })
	r.listen(t)
	c = r.accept(t)
	awaitFrame(t, c)
	r.ping(t, c)
	nettest.Eventually(t, 10*time.Second, "the trouble is over", func() bool { return b.Trouble() == "" })
	b.Stop()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the bridge")
	}
}

// A bridge that dies is started again with what it knew; the device stays up.
func TestBridgeProcessIsStartedAgain(t *testing.T) {
	nettest.Root(t)
	r := newBridgeRig(t)
	records := t.TempDir()
	var pids []int
	r.bridges.Record = func(name string, pid int) error {
		pids = append(pids, pid)
		return os.WriteFile(filepath.Join(records, filepath.Base(name)), fmt.Append(nil, pid), 0o600)
	}
	r.bridges.Forget = func(name string) error { return os.Remove(filepath.Join(records, filepath.Base(name))) }
	b := r.start(t)
	c := r.accept(t)
	r.ping(t, c)
	<-r.announced
	checkConfined(t, pids[0])
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c = r.accept(t)
	awaitFrame(t, c)
	r.ping(t, c)
	if out := r.jail.Run(t, "ip", "link", "show", "eth0"); !strings.Contains(out, "LOWER_UP") {
		t.Errorf("the device is %s", out)
	}
	b.Stop()
	if len(pids) != 2 {
		t.Errorf("processes %v; want two", pids)
	}
	if left, err := os.ReadDir(records); len(left) > 0 || err != nil {
		t.Errorf("records %v, %v", left, err)
	}
	if err := unix.Kill(pids[1], 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the second process lives: %v", err)
	}
}

// checkConfined looks at what a bridge may do.
func checkConfined(t *testing.T, pid int) {
	t.Helper()
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid)); err != nil || len(entries) != 0 {
		t.Errorf("its root has %v, %v", entries, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Uid:\t65520\t65520\t65520\t65520\n", "Gid:\t65520\t65520\t65520\t65520\n", "Groups:\t \n", "CapEff:\t0000000000000000\n",
		"CapPrm:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n", fmt.Sprintf("NSpid:\t%d\t1\n", pid),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the status:\n%s", want, text)
		}
	}
}

func TestBridgeNeedsARouterAtItsStart(t *testing.T) {
	nettest.Root(t)
	r := newBridgeRig(t)
	r.listener.Close()
	_, err := r.bridges.Start(BridgeConfig{Vassal: "blog", Device: r.dev, Socket: r.socket})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "connect device eth0 to router "+r.socket) {
		t.Errorf("got %v", err)
	}
}

// A router of the emperor's own would take the bridge for the emperor.
func TestBridgeToARouterOfOurOwn(t *testing.T) {
	nettest.Root(t)
	r := newBridgeRig(t)
	r.bridges.Emperor = os.Getpid() // who listens here
	_, err := r.bridges.Start(BridgeConfig{Vassal: "blog", Device: r.dev, Socket: r.socket})
	if err == nil || !strings.Contains(err.Error(), "a socket of this emperor's own; write it as") {
		t.Errorf("got %v", err)
	}
}

func TestBridgeOfADeletedDevice(t *testing.T) {
	nettest.Root(t)
	r := newBridgeRig(t)
	r.start(t)
	r.accept(t)
	r.jail.Do(t, func() {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkDel(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	select {
	case why := <-r.lost:
		if !strings.Contains(why, "gone") {
			t.Error(why)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the loss is not told")
	}
}
