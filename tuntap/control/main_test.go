package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

const dialerProcess = "dialer" // connects, and stays until its input ends

// TestMain plays the router when the package starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case RouterProcess:
			os.Exit(Main(os.Args[2:]))
		case BridgeProcess:
			os.Exit(BridgeMain(os.Args[2:]))
		case emperorProcess:
			if err := playEmperor(); err != nil {
				fmt.Fprintln(os.Stderr, "emperor:", err)
				os.Exit(1)
			}
			os.Exit(0)
		case dialerProcess:
			if _, err := net.Dial("unix", os.Args[2]); err != nil {
				fmt.Println(err)
			}
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var pool = netip.MustParsePrefix("10.9.0.1/24")

// rig is a keeper with one network, whose device is in a namespace that
// stands for the host, and one vassal's device in another.
type rig struct {
	*Keeper
	host, jail *nettest.NS
	socket     string
	stats      string
	device     *tuntap.Device // the vassal's

	mu         sync.Mutex
	life       *tuntap.Lifeline
	registered []Registration
	identified []int
	pids       []int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "fiefdom-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{host: nettest.NewNS(t), jail: nettest.NewNS(t), socket: filepath.Join(dir, "s"), stats: filepath.Join(dir, "stats")}
	dev := openDevice(t, r.host, "tun0")
	r.host.Do(t, func() {
		link, err := netlink.LinkByName("tun0")
		if err == nil {
			err = errors.Join(netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(pool)}), netlink.LinkSetUp(link))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	r.device = openDevice(t, r.jail, "eth0")
	r.Keeper = &Keeper{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), UID: 65519, GID: 65519,
		Networks: []*Network{{
			Config: tuntap.NetworkConfig{Name: "tun0", Pool: []netip.Prefix{pool.Masked()}, Own: []netip.Addr{pool.Addr()}},
			Device: dev, Listener: listen(t, r.socket), Stats: listen(t, r.stats),
		}},
		Identify: func(pidfd *os.File) string {
			r.mu.Lock()
			defer r.mu.Unlock()
			b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
			pid := 0
			for line := range strings.Lines(string(b)) {
				_, _ = fmt.Sscanf(line, "Pid:\t%d", &pid)
			}
			if err == nil {
				r.identified = append(r.identified, pid)
			}
			return ""
		},
		Registered: func(g Registration) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.registered = append(r.registered, g)
		},
		Closed: func(Closing) {},
		Rejoin: r.rejoin,
		Started: func(pid int) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.pids = append(r.pids, pid)
			return nil
		},
	}
	return r
}

func (r *rig) rejoin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life != nil {
		_ = r.life.Close()
	}
	var err error
	addr := netip.MustParseAddr("10.9.0.7")
	r.life, err = tuntap.HandOver(r.socket, r.device, tuntap.Handover{Vassal: "blog", May: []netip.Prefix{netip.PrefixFrom(addr, 32)}, Registered: []netip.Addr{addr}})
	return err
}

// run runs the keeper until the end of the test, or until stop is called.
func (r *rig) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { failed <- r.Run(ctx, func() { close(ready) }) })
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.life != nil {
			_ = r.life.Close()
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("no router")
	}
	return stop
}

func openDevice(t *testing.T, ns *nettest.NS, name string) *tuntap.Device {
	t.Helper()
	var dev *tuntap.Device
	ns.Do(t, func() {
		var err error
		if dev, err = tuntap.OpenDevice(name); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { dev.Close() })
	return dev
}

func listen(t *testing.T, path string) *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(func() { f.Close() })
	return f
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
