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
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

const (
	probeProcess  = "probe"  // says what a router may do
	dialerProcess = "dialer" // connects, and stays until its input ends
)

// TestMain plays the router when the package starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case RouterProcess:
			os.Exit(Main(os.Args[2:]))
		case BridgeProcess:
			os.Exit(BridgeMain(os.Args[2:]))
		case probeProcess:
			probe()
			os.Exit(0)
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

// probe gives its rights away as a router does and tries what it must not do.
func probe() {
	if err := confine(65519, 65519); err != nil {
		fmt.Println("confine:", err)
		return
	}
	path := append([]byte("/etc/passwd"), 0)
	p := uintptr(unsafe.Pointer(&path[0]))
	cwd := unix.AT_FDCWD
	for _, c := range []struct {
		name string
		nr   uintptr
		args [3]uintptr
	}{
		{"openat", unix.SYS_OPENAT, [3]uintptr{uintptr(cwd), p, unix.O_RDONLY}},
		{"socket", unix.SYS_SOCKET, [3]uintptr{unix.AF_INET, unix.SOCK_STREAM, 0}},
		{"connect", unix.SYS_CONNECT, [3]uintptr{0, p, 8}},
		{"execve", unix.SYS_EXECVE, [3]uintptr{p, 0, 0}},
		{"execveat", unix.SYS_EXECVEAT, [3]uintptr{uintptr(cwd), p, 0}},
		{"ptrace", unix.SYS_PTRACE, [3]uintptr{unix.PTRACE_TRACEME, 0, 0}},
		{"kill", unix.SYS_KILL, [3]uintptr{uintptr(os.Getpid()), 0, 0}},
		{"setuid", unix.SYS_SETUID, [3]uintptr{0, 0, 0}},
		{"unshare", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER, 0, 0}},
		{"setns", unix.SYS_SETNS, [3]uintptr{0, 0, 0}},
		{"mount", unix.SYS_MOUNT, [3]uintptr{p, p, p}},
		{"bpf", unix.SYS_BPF, [3]uintptr{0, 0, 0}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{1, p, 0}},
		{"clone a process", unix.SYS_CLONE, [3]uintptr{uintptr(unix.SIGCHLD), 0, 0}},
		{"clone a namespace", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD), 0, 0}},
		{"clone3", unix.SYS_CLONE3, [3]uintptr{p, 64, 0}},
	} {
		_, _, errno := unix.Syscall(c.nr, c.args[0], c.args[1], c.args[2])
		fmt.Printf("%s: %s\n", c.name, unix.ErrnoName(errno))
	}
	// The runtime still works: threads, memory, timers.
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { runtime.LockOSThread(); _ = make([]byte, 8<<20); time.Sleep(time.Millisecond) })
	}
	wg.Wait()
	runtime.GC()
	fmt.Println("alive")
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
