package confine

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// attempts are what no process of ours may do, each tried as one would who is
// in there: with arguments that lead somewhere.
func attempts(socket string) []attempt {
	path := append([]byte("/etc/passwd"), 0)
	p := uintptr(unsafe.Pointer(&path[0]))
	raw := func(name string, nr uintptr, args ...uintptr) attempt {
		return attempt{name, func() error {
			var a [6]uintptr
			copy(a[:], args)
			_, _, errno := unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
			runtime.KeepAlive(path)
			if errno == 0 {
				return nil
			}
			return errno
		}}
	}
	them := parent()
	var page []byte
	all := []attempt{
		{"open a file", func() error { return openFile("/etc/passwd") }},
		{"open the root", func() error { return openFile("/") }},
		{"make a file", func() error { _, err := unix.Open("/x", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); return err }},
		{"ask for a file", func() error { var st unix.Stat_t; return unix.Stat("/etc/passwd", &st) }},
		{"change its root", func() error { return unix.Chroot("/") }},
		{"change its folder", func() error { return unix.Chdir("/") }},
		{"execute", func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
		{"execute memory", func() error { _, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC); return err }},
		{"trace its parent", func() error { return unix.PtraceAttach(them) }},
		{"signal its parent", func() error { return unix.Kill(them, 0) }},
		{"signal its parent's thread", func() error { return unix.Tgkill(them, them, 0) }},
		{"hold its parent", func() error { _, err := unix.PidfdOpen(them, 0); return err }},
		{"be dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
		{"mount", func() error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
		{"unmount", func() error { return unix.Unmount("/", unix.MNT_DETACH) }},
		{"be somebody", func() error { return unix.Setresuid(0, 0, 0) }},
		raw("have other namespaces", unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		raw("join a namespace", unix.SYS_SETNS, 0, 0),
		{"have more files", func() error { return unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: 1}, nil) }},
		{"write to a terminal's input", func() error { return unix.IoctlSetPointerInt(0, unix.TIOCSTI, 'x') }},
		{"map code", func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		}},
		{"make memory code", func() (err error) {
			if page, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
				return err
			}
			return unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
		}},
		{"a pair of sockets", func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
		{"listen", func() error { return unix.Listen(freeSocket, 1) }},
		raw("a process", unix.SYS_CLONE, uintptr(unix.SIGCHLD)),
		raw("a process in a namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)),
		raw("clone3", unix.SYS_CLONE3, p, 64),
		raw("read another's memory", unix.SYS_PROCESS_VM_READV, uintptr(them), p, 0, p, 0, 0),
		raw("io_uring", unix.SYS_IO_URING_SETUP, 1, p),
		raw("bpf", unix.SYS_BPF),
		raw("perf", unix.SYS_PERF_EVENT_OPEN, p),
		raw("userfaultfd", unix.SYS_USERFAULTFD),
		raw("keys", unix.SYS_KEYCTL),
		raw("a module", unix.SYS_INIT_MODULE),
		raw("the clock", unix.SYS_CLOCK_SETTIME),
		raw("a file by its handle", unix.SYS_OPEN_BY_HANDLE_AT, 0, p),
		raw("capabilities", unix.SYS_CAPSET, p, p),
	}
	for name, family := range map[string]int{"unix": unix.AF_UNIX, "netlink": unix.AF_NETLINK, "packets": unix.AF_PACKET, "vsock": unix.AF_VSOCK, "alg": unix.AF_ALG} {
		all = append(all, attempt{"socket of " + name, func() error { return openSocket(family) }})
	}
	return all
}

// start starts a process that tries to get out, and returns its pid and how that ended.
func start(t *testing.T, kind string) (pid int, results map[string]string) {
	t.Helper()
	nettest.Root(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(l.Addr().String(), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // nothing else keeps it out
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	free := os.NewFile(uintptr(fd), "socket")
	defer free.Close()
	cmd := exec.Command("/proc/self/exe", kind, l.Addr().String(), strconv.Itoa(os.Getpid()))
	cmd.ExtraFiles, cmd.Dir = []*os.File{free}, dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	results = map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "end" {
			return cmd.Process.Pid, results
		}
		name, how, _ := strings.Cut(lines.Text(), ": ")
		results[name] = how
	}
	t.Fatalf("it ended early: %v", results)
	return 0, nil
}

// A process of ours that somebody has taken over does nothing with what he finds.
func TestConfinedProcess(t *testing.T) {
	for kind, want := range map[string]map[string]string{
		givenProcess: {"clone3": "ENOSYS"},
		dialsProcess: {
			"clone3": "ENOSYS", "may have a socket of IPv4": "done", "may have a socket of IPv6": "done",
			"reach a unix socket by its path": "ENOENT", // the filter cannot see where a connect leads
		},
	} {
		t.Run(kind, func(t *testing.T) {
			pid, results := start(t, kind)
			if len(results) < 42 {
				t.Errorf("%d attempts: %v", len(results), results)
			}
			for name, how := range results {
				expected := want[name]
				if expected == "" {
					expected = "EPERM"
				}
				if how != expected {
					t.Errorf("%s: %s, want %s", name, how, expected)
				}
			}
			inspect(t, pid)
		})
	}
}

// inspect looks at a confined process from outside.
func inspect(t *testing.T, pid int) {
	t.Helper()
	status := fields(t, fmt.Sprintf("/proc/%d/status", pid))
	const none = "0000000000000000"
	for key, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2", "Groups": "", "Uid": "65519 65519 65519 65519", "Gid": "65519 65519 65519 65519",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none,
	} {
		if got := status[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil || len(entries) != 0 {
		t.Errorf("its root has %v, %v", entries, err)
	}
	for _, link := range []string{"root", "cwd"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(fmt.Sprintf("/proc/%d/%s", pid, link), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Flags&unix.ST_RDONLY == 0 {
			t.Errorf("%s: file system %#x, flags %#x, %v", link, fs.Type, fs.Flags, err)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Max core file size", "Max file size", "Max locked memory", "Max msgqueue size"} {
		_, after, _ := strings.Cut(string(limits), name)
		if words := strings.Fields(after); len(words) < 2 || words[0] != "0" || words[1] != "0" {
			t.Errorf("%s is not none:\n%s", name, limits)
		}
	}
}

func fields(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		all[key] = strings.Join(strings.Fields(value), " ")
	}
	return all
}

// The empty root directory holds without the list of system calls.
func TestEmptyRoot(t *testing.T) {
	want := map[string]string{"make a file": "EROFS", "make a folder": "EROFS", "change the root again": "EPERM"}
	_, results := start(t, rootedProcess)
	if len(results) != 9 {
		t.Errorf("%d attempts: %v", len(results), results)
	}
	for name, how := range results {
		expected := want[name]
		if expected == "" {
			expected = "ENOENT"
		}
		if how != expected {
			t.Errorf("%s: %s, want %s", name, how, expected)
		}
	}
}

// The calls that move packets, and all the others that need no look at their
// arguments, cost nothing: the kernel does not run the filter for them if it
// finds that they are allowed whatever the arguments are.
func TestFilterDoesNotLookAtPackets(t *testing.T) {
	for _, kind := range []Kind{Given, Dials} {
		p := program(kind)
		for _, nr := range allowed {
			if !allowedUnseen(t, p, nr) {
				t.Errorf("kind %d: call %d needs its arguments", kind, nr)
			}
		}
	}
}
