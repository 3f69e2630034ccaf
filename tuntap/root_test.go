package tuntap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// realWorld is a router between a host and jails that are real namespaces,
// with IPv6 left on: their kernels chatter before the first packet of ours.
type realWorld struct {
	*world
	hostNS *nettest.NS
}

func newRealWorld(t testing.TB, cfg NetworkConfig) *realWorld {
	w := &realWorld{&world{t: t, name: cfg.Name, events: make(chan happened, 1<<10)}, nettest.NewNS(t)}
	nettest.NoLeaks(t)
	device := openIn(t, w.hostNS, cfg.Name)
	configure(t, w.hostNS, cfg.Name, netip.PrefixFrom(gateway, 16), netip.PrefixFrom(gateway6, 64))

	w.socket = filepath.Join(t.TempDir(), "router.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	if w.r, err = New(slog.New(slog.DiscardHandler), w.record(), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if err := w.r.Threads(*threads); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.FcntlInt(uintptr(device.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	device.Close()
	if err := w.r.AddNetwork(cfg, Descriptors{Device: os.NewFile(uintptr(dup), cfg.Name), Listener: file}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	w.r.Serve()
	return w
}

// openIn opens a tun device in a namespace.
func openIn(t testing.TB, ns *nettest.NS, name string) *Device {
	t.Helper()
	var dev *Device
	ns.Do(t, func() {
		var err error
		if dev, err = OpenDevice(name); err != nil {
			t.Fatal(err)
		}
	})
	return dev
}

// configure gives a device its addresses, at once valid, and takes it up.
func configure(t testing.TB, ns *nettest.NS, name string, addrs ...netip.Prefix) {
	t.Helper()
	for _, a := range addrs {
		args := []string{"address", "add", a.String(), "dev", name}
		if a.Addr().Is6() {
			args = append(args, "nodad")
		}
		ns.Run(t, "ip", args...)
	}
	ns.Run(t, "ip", "link", "set", name, "up")
	// Until then the kernel would send from the link-local address.
	nettest.Eventually(t, 5*time.Second, "the addresses of "+name+" to be in use", func() bool {
		return ns.Run(t, "ip", "-6", "address", "show", "dev", name, "tentative") == ""
	})
}

// jail makes a namespace with a device that is handed over.
func (w *realWorld) jail(name string, addr, addr6 netip.Addr) (*nettest.NS, *Lifeline) {
	t := w.t
	ns := nettest.NewNS(t)
	dev := openIn(t, ns, "eth0")
	configure(t, ns, "eth0", netip.PrefixFrom(addr, 16), netip.PrefixFrom(addr6, 64))
	life, err := HandOver(w.socket, dev, Handover{Vassal: name, May: []netip.Prefix{single(addr), single(addr6)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := life.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := dev.Close(); err != nil { // the router's duplicate keeps it
		t.Fatal(err)
	}
	return ns, life
}

func TestRealDevices(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	blogNS, _ := w.jail("blog", blog, blog6)
	shopNS, _ := w.jail("shop", shop, shop6)

	for _, to := range []netip.Addr{gateway, gateway6} {
		blogNS.Run(t, "ping", "-c", "1", "-W", "5", to.String())
		shopNS.Run(t, "ping", "-c", "1", "-W", "5", to.String())
	}
	if got := len(w.stats("blog").Addresses); got != 2 {
		t.Errorf("blog has %d addresses; want 2", got)
	}
	transfer(t, blogNS, shopNS, netip.AddrPortFrom(shop, 8080))
	transfer(t, blogNS, shopNS, netip.AddrPortFrom(shop6, 8080))
	transfer(t, w.hostNS, blogNS, netip.AddrPortFrom(blog, 8080))

	// An address that is the neighbour's is of no use, and hurts nobody.
	blogNS.Run(t, "ip", "address", "add", "10.9.0.99/16", "dev", "eth0")
	if out := tryRun(t, blogNS, "ping", "-c", "1", "-W", "1", "-I", "10.9.0.99", gateway.String()); !strings.Contains(out, "100% packet loss") {
		t.Errorf("a spoofed ping: %s", out)
	}
	if w.stats("blog").Drops[DropSpoofed] == 0 {
		t.Errorf("drops: %v", w.stats("blog").Drops)
	}
	transfer(t, blogNS, shopNS, netip.AddrPortFrom(shop, 8081))
}

// tryRun runs a command that is expected to fail and returns its output.
func tryRun(t *testing.T, ns *nettest.NS, name string, args ...string) string {
	t.Helper()
	return ns.Run(t, "sh", append([]string{"-c", name + ` "$@" || true`, name}, args...)...)
}

// transfer sends some megabytes over TCP and compares hashes.
func transfer(t *testing.T, from, to *nettest.NS, addr netip.AddrPort) {
	t.Helper()
	data := make([]byte, 4<<20)
	chacha := rand.NewChaCha8([32]byte{1})
	_, _ = chacha.Read(data)
	var listener net.Listener
	to.Do(t, func() {
		var err error
		if listener, err = net.Listen("tcp", addr.String()); err != nil {
			t.Fatal(err)
		}
	})
	defer listener.Close()
	sum := make(chan []byte, 1)
	go func() {
		defer close(sum)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return
		}
		h := sha256.New()
		if _, err := io.Copy(h, conn); err == nil {
			sum <- h.Sum(nil)
		}
	}()
	from.Do(t, func() {
		conn, err := net.DialTimeout("tcp", addr.String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
	})
	want := sha256.Sum256(data)
	if got := <-sum; !bytes.Equal(got, want[:]) {
		t.Errorf("transfer to %v: hash % x; want % x", addr, got, want)
	}
}

func TestDeviceErrorsSayWhy(t *testing.T) {
	nettest.Root(t)
	ns := nettest.NewNS(t)
	dev := openIn(t, ns, "tun7")
	defer dev.Close()
	if _, err := prepareTun(dev.FD()); err != nil {
		t.Errorf("our own device: %v", err)
	}
	ns.Run(t, "ip", "link", "add", "veth7", "type", "veth", "peer", "name", "veth8")
	for name, want := range map[string]string{
		"tun7":                  "another process has it open",
		"veth7":                 "no tun device",
		"":                      "1 to 15 bytes",
		"a-name-that-is-longer": "1 to 15 bytes",
	} {
		ns.Do(t, func() {
			if d, err := OpenDevice(name); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("open %q: %v, %v; want %q", name, d, err, want)
			}
		})
	}
	var tap *os.File
	ns.Do(t, func() {
		fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		tap = os.NewFile(uintptr(fd), "tap")
		ifr, _ := unix.NewIfreq("tap7")
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			t.Fatal(err)
		}
	})
	defer tap.Close()
	if _, err := prepareTun(int(tap.Fd())); err == nil || !strings.Contains(err.Error(), "tap7") {
		t.Errorf("a tap counts as a tun: %v", err)
	}
}

// A jail whose namespace is destroyed takes its device with it.
func TestDeletedDeviceEndsThePeer(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	ns, life := w.jail("blog", blog, blog6)
	ns.Run(t, "ping", "-c", "1", "-W", "5", gateway.String())
	ns.Run(t, "ip", "link", "set", "eth0", "down")
	w.hostNS.Run(t, "ping", "-c", "1", "-W", "1", gateway.String()) // the host itself
	tryRun(t, w.hostNS, "ping", "-c", "1", "-W", "1", blog.String())
	if w.stats("blog").Drops[DropNotReady] == 0 {
		t.Errorf("drops of a device that is down: %v", w.stats("blog").Drops)
	}
	ns.Run(t, "ip", "link", "delete", "eth0")
	select {
	case <-life.Lost():
	case <-time.After(5 * time.Second):
		t.Fatal("the router did not notice")
	}
}
