package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
	"fiefdom/internal/pidfd"
	"fiefdom/tuntap"
)

// emperorProcess plays one emperor of a dynasty: a process that can be killed.
const emperorProcess = "emperor"

// reignConfig is what an emperor of a test is told.
type reignConfig struct {
	Dir     string
	Threads int
	Vassals []string // by the jails, which are the descriptors from 3 on
	Drop    []string // vassals that are not handed over
	Socket  string
	Rules   bool // chain out has a rule
	Mute    bool // it never settles
}

// reigning is what an emperor says of himself once he reigns.
type reigning struct {
	Adopted bool
	Router  int
	Devices []Adopted // without the files
}

var deny = []firewall.Rule{{Action: firewall.Deny, Dst: netip.MustParsePrefix("203.0.113.0/24"), File: "emperor.ini", Line: 7}}

// playEmperor is the process. It answers the lines of its input with a snapshot.
func playEmperor() error {
	var c reignConfig
	if err := json.Unmarshal([]byte(os.Args[2]), &c); err != nil {
		return err
	}
	record := filepath.Join(c.Dir, "record")
	k := &Keeper{
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)).With("emperor", os.Getpid()), UID: 65519, GID: 65519, Threads: c.Threads,
		Door: filepath.Join(c.Dir, "door"), Recorded: func() (*os.File, int, error) { return recorded(record) },
		Started:    func(pid int) error { return os.WriteFile(record, []byte(strconv.Itoa(pid)), 0o600) },
		Registered: func(Registration) {}, Closed: func(Closing) {}, Identify: func(*os.File) string { return "" },
	}
	devices, ok, err := k.Adopt(context.Background())
	if err != nil {
		return err
	}
	var jails []*tuntap.Device
	for i := range c.Vassals {
		d, err := c.device(i, devices)
		if err != nil {
			return err
		}
		jails = append(jails, d)
	}
	if err := c.networks(k); err != nil {
		return err
	}
	k.Rejoin = func() error { return c.handOver(jails) }
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { ended <- k.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	if !c.Mute {
		k.Settle()
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(reigning{Adopted: ok, Router: k.PID(), Devices: devices}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		s, err := k.Snapshot(context.Background())
		if err := errors.Join(err, out.Encode(s)); err != nil {
			return err
		}
	}
	cancel()
	return <-ended
}

// handOver hands the jails' devices over; the life lines end with the process.
func (c *reignConfig) handOver(jails []*tuntap.Device) error {
	for i, name := range c.Vassals {
		if slices.Contains(c.Drop, name) {
			continue
		}
		if _, err := tuntap.HandOver(c.Socket, jails[i], tuntap.Handover{
			Vassal: name, May: []netip.Prefix{netip.PrefixFrom(vassalAddr(i), 32)}, Registered: []netip.Addr{vassalAddr(i)},
		}); err != nil {
			return err
		}
	}
	return nil
}

// recorded opens the process whose pid is in a file; nil: there is none.
func recorded(path string) (*os.File, int, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	pid, perr := strconv.Atoi(string(b))
	if err := errors.Join(err, perr); err != nil {
		return nil, 0, err
	}
	process, err := pidfd.Open(pid)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // gone
	}
	return process, pid, nil
}

func vassalAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, byte(7 + i)}) }

// device is the adopted device of a jail, or a new one.
func (c *reignConfig) device(i int, adopted []Adopted) (d *tuntap.Device, err error) {
	jail := nsh.NsHandle(3 + i)
	inode, err := netns.Inode(jail)
	if err != nil {
		return nil, err
	}
	for j, a := range adopted {
		if a.Inode == inode {
			adopted[j].File = nil
			return tuntap.NewDevice(a.Device, a.File)
		}
	}
	err = netns.Do(jail, func() error {
		if d, err = tuntap.OpenDevice("eth0"); err != nil {
			return err
		}
		return setUp("eth0", netip.PrefixFrom(vassalAddr(i), 24))
	})
	return d, err
}

func setUp(device string, address netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetTxQLen(link, 10000), netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}), netlink.LinkSetUp(link))
}

// networks has the keeper go on with what it found, or makes it.
func (c *reignConfig) networks(k *Keeper) error {
	stats := filepath.Join(c.Dir, "stats")
	n := &Network{Config: tuntap.NetworkConfig{Name: "tun0", Pool: []netip.Prefix{pool.Masked()}, Own: []netip.Addr{pool.Addr()}, Direct: true}}
	k.Networks = []*Network{n}
	if c.Rules {
		n.Config.Out = deny
	}
	for _, old := range k.Found() {
		if Bound(old.Listener, "unix", c.Socket) && Bound(old.Stats, "unix", stats) {
			n.Device, n.Listener, n.Stats = old.Device, old.Listener, old.Stats
			return nil
		}
		if err := k.Remove(old); err != nil {
			return err
		}
	}
	var err error
	if n.Device, err = tuntap.OpenDevice("tun0"); err != nil {
		return err
	}
	if err := setUp("tun0", pool); err != nil {
		return err
	}
	for path, f := range map[string]**os.File{c.Socket: &n.Listener, stats: &n.Stats} {
		_ = os.Remove(path)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		if *f, err = l.File(); err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// dynasty is emperors, one after another, with the same host, jails and router.
type dynasty struct {
	host  *nettest.NS
	jails []*nettest.NS
	flows int // that there were
	reignConfig
}

// reign is one of them.
type reign struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	reigning
}

func newDynasty(t *testing.T, vassals ...string) *dynasty {
	t.Helper()
	dir, err := os.MkdirTemp("", "fiefdom-dynasty-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("log: %s", text)
		}
		os.RemoveAll(dir)
	})
	d := &dynasty{
		host:        nettest.NewNS(t),
		reignConfig: reignConfig{Dir: dir, Vassals: vassals, Threads: 1, Socket: filepath.Join(dir, "s")},
	}
	for range vassals {
		d.jails = append(d.jails, nettest.NewNS(t))
	}
	// Orphans of this test are its children, so that it can reap them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.endRouter(t) })
	return d
}

// endRouter ends the router that is on record, and reaps it.
func (d *dynasty) endRouter(t *testing.T) {
	pidfd, pid, err := recorded(filepath.Join(d.Dir, "record"))
	if err != nil || pidfd == nil {
		return
	}
	defer pidfd.Close()
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Log(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Log(err)
	}
}

// crown starts the next emperor and waits until he reigns.
func (d *dynasty) crown(t *testing.T) *reign {
	t.Helper()
	args, err := json.Marshal(d.reignConfig)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", emperorProcess, string(args))
	// Not a pipe of this process's, which the router would keep open.
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	for _, jail := range d.jails {
		fd, err := unix.FcntlInt(uintptr(jail.Handle), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "jail")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	in, err := cmd.StdinPipe()
	out, oerr := cmd.StdoutPipe()
	if err := errors.Join(err, oerr); err != nil {
		t.Fatal(err)
	}
	d.host.Start(t, cmd)
	r := &reign{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	// A test that would wait for ever says where.
	stuck := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	r.read(&r.reigning)
	return r
}

func (r *reign) read(v any) {
	r.t.Helper()
	line, err := r.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		r.t.Fatalf("the emperor: %v: %s", err, line)
	}
}

// die kills the emperor. His router is an orphan then.
func (r *reign) die() {
	r.t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	_ = r.cmd.Wait()
	r.in.Close()
}

func (r *reign) snapshot() tuntap.NetworkStats {
	r.t.Helper()
	fmt.Fprintln(r.in)
	var s []tuntap.NetworkStats
	r.read(&s)
	if len(s) != 1 {
		r.t.Fatalf("%+v", s)
	}
	return s[0]
}
