package nettest

import (
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
)

// The addresses of a world's host and of its internet, on the cable between them.
var (
	HostAddr4 = netip.MustParseAddr("198.51.100.1")
	HostAddr6 = netip.MustParseAddr("2001:db8:198::1")
	InetAddr4 = netip.MustParseAddr("198.51.100.2")
	InetAddr6 = netip.MustParseAddr("2001:db8:198::2")
)

// World is a machine of a test's own, and an internet beside it. Everything that
// is started in it dies with the test, daemonised or not. What it shares with
// the real machine is the rest of the file system, /tmp above all: give sockets
// of a test other paths.
type World struct {
	Host *NS // where emperors run
	Inet *NS // for servers outside; its processes see the real file system

	pidfd  int
	pid    int      // of the first process, seen from outside
	cgroup string   // the world's root in the cgroup v2 tree; "" without such a tree
	legacy []string // the world's roots in the v1 trees that limit
}

// namespaces are those that a command in a world enters.
const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID

// furnish is what the first process of a world does: private mounts, then
// nothing until its input ends, while it reaps whatever is orphaned to it.
// $1 is the mount point of the cgroup v2 tree, or empty; $2 the world's part of it;
// then come the world's parts of v1 trees, each with its mount point.
const furnish = `
set -e
mount -t proc proc /proc
if [ -n "$1" ]; then mount --bind "$2" "$1"; fi
shift 2
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a /etc/. /mnt/
mount --move /mnt /etc
rm -f /etc/resolv.conf
echo nameserver 198.51.100.2 >/etc/resolv.conf
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock
touch /run/xtables.lock
mount -t tmpfs -o mode=755 tmpfs /var/lib
sh -c '` + holder + `'
:`

// holder waits in the first process' place, which is busy with reaping; it says
// that the world is ready itself, so that from then on no process comes or goes.
const holder = "echo ready; read -r end || :"

// NewWorld makes a world. It calls [Root].
func NewWorld(t testing.TB) *World {
	t.Helper()
	Root(t)
	w := &World{}
	w.start(t)
	w.Inet = NewNS(t)
	w.Host.setUp(t)
	Veth(t,
		End{w.Host, "eth0", []netip.Prefix{netip.PrefixFrom(HostAddr4, 24), netip.PrefixFrom(HostAddr6, 64)}},
		End{w.Inet, "eth0", []netip.Prefix{netip.PrefixFrom(InetAddr4, 24), netip.PrefixFrom(InetAddr6, 64)}})
	w.Host.Route(t, InetAddr4)
	w.Host.Route(t, InetAddr6)
	return w
}

// start starts the first process, which holds the namespaces: it is pid 1 of its
// pid namespace, so that its end is the end of everything in it.
func (w *World) start(t testing.TB) {
	t.Helper()
	mountPoint := w.makeCgroup(t)
	args := append([]string{"-c", furnish, "world", mountPoint, w.cgroup}, w.makeLegacy(t)...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
		PidFD:        &w.pidfd,
	}
	defer w.enterCgroup(t, cmd)()
	// Its input ends with this test process, however that ends.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a world: %v", err)
	}
	w.pid = cmd.Process.Pid
	t.Cleanup(func() {
		unix.Close(w.pidfd)
		stdin.Close()
		if cmd.ProcessState != nil {
			return // it failed at once
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("end a world: %v", err)
		}
	})
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(stdout, ready); err != nil {
		stdin.Close()
		_ = cmd.Wait()
		t.Fatalf("furnish a world: %v\n%s", err, stderr.String())
	}
	handle, err := vnetns.GetFromPid(w.pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	w.Host = &NS{Handle: handle}
}

// makeCgroup makes the world's root in the cgroup v2 tree and returns the tree's
// mount point, or "" where there is no such tree.
func (w *World) makeCgroup(t testing.TB) string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		t.Fatalf("look for the cgroup tree: %v", err)
	}
	if len(mounts) == 0 {
		return ""
	}
	tree := mounts[0].Mountpoint
	w.cgroup = NewCgroup(t, tree)
	t.Cleanup(func() {
		if err := killCgroup(w.cgroup); err != nil {
			t.Error(err)
		}
	})
	return tree
}

// enterCgroup lets cmd be born in the world's cgroup; it has been when entered is called.
func (w *World) enterCgroup(t testing.TB, cmd *exec.Cmd) (entered func()) {
	t.Helper()
	if w.cgroup == "" {
		return func() {}
	}
	dir, err := os.Open(w.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return func() { dir.Close() }
}

// Path is where a path of the world is found from outside.
func (w *World) Path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(w.pid), "root", inside)
}

// Start starts cmd on the world's host. Cmd.Process has its pid as seen from
// outside. At the end of the test it is killed and waited for, unless the test
// has done so.
func (w *World) Start(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	w.launch(t, cmd)
	endWith(t, cmd)
}

// Run runs a command on the world's host, and returns what it wrote to both its
// outputs. The test fails, with that text, if the command does.
func (w *World) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := w.Try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// Try is Run for a command that may fail; its error is that of [exec.Cmd.Wait].
func (w *World) Try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = waitDelay
	w.launch(t, cmd)
	err := cmd.Wait()
	return out.String(), err
}

func (w *World) launch(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if cmd.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Dir = dir
	}
	set := namespaces
	if w.cgroup != "" {
		set |= unix.CLONE_NEWCGROUP
	}
	defer w.enterCgroup(t, cmd)()
	if err := netns.StartIn(w.pidfd, set, cmd); err != nil {
		t.Fatalf("start %v: %v", cmd, err)
	}
}
