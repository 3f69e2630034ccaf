package emperor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// recycling connects to the socket of its argument, as each line of its input says:
// by a process of a network namespace of its own, by one beside it, or by one of that
// namespace that ends and leaves its pid to a process beside it. It tells the pid, 0
// if somebody else got it.
const recycling = `import ctypes, os, socket, struct, sys
CLONE3, NEWNET = 435, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
def child(work):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        work()
        os.write(w, b'x')
        os.close(w)
        hold()
    os.close(w)
    os.read(r, 1)
    os.close(r)
    return pid
def hold():
    os.close(last[1])
    os.read(last[0], 1)
    os._exit(0)
last = os.pipe()
def leave():
    if libc.unshare(NEWNET): os._exit(1)
outside = child(leave)
ns = os.open('/proc/%d/ns/net' % outside, os.O_RDONLY)
print(os.fstat(ns).st_ino, flush=True)
for line in sys.stdin:
    s = socket.socket(socket.AF_UNIX)
    def connect():
        if 'beside' not in line and libc.setns(ns, NEWNET): os._exit(1)
        s.connect(sys.argv[1])
        if 'ends' in line: os._exit(0)
    pid = child(connect)
    if 'ends' in line:
        os.waitpid(pid, 0)
        want = (ctypes.c_int * 1)(pid)
        args = ctypes.create_string_buffer(struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(want), 1, 0))
        got = libc.syscall(CLONE3, args, 88)
        if got == 0: hold()
        print(pid if got == pid else 0, flush=True)
    else:
        got = pid
        print(pid, flush=True)
    sys.stdin.readline()
    s.close()
    if got > 0:
        os.kill(got, 9)
        os.waitpid(got, 0)
os.kill(outside, 9)
`

// Who connects and ends is nobody, though another has his pid by the time that the
// emperor asks for him: neither the app of a jail, nor one of the host's. // T11
func TestRecycledPIDsAreNobodys(t *testing.T) {
	nettest.Root(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "door"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), nettest.Program(t, "python3"), "-c", recycling, l.Addr().String())
	var said strings.Builder
	cmd.Stderr = &said
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
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &said)
		}
	}()
	lines := bufio.NewReader(out)
	number := func() (n uint64) {
		t.Helper()
		line, err := lines.ReadString('\n')
		if err == nil {
			_, err = fmt.Sscan(line, &n)
		}
		if err != nil {
			t.Fatalf("%q: %v: %s", line, err, &said)
		}
		return n
	}
	e := testEmperor(t)
	e.jails.Store(number(), &vassal.Jail{Name: "blog"})
	// judged is what the emperor says of who connected; taken: whose pid is another's.
	judged := func(how string) (pid int, why string, taken bool) {
		t.Helper()
		if _, err := io.WriteString(in, how+"\n"); err != nil {
			t.Fatal(err)
		}
		pid = int(number())
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cred, err := peerCredentials(c)
		if err != nil {
			t.Fatal(err)
		}
		taken = int(cred.Pid) == pid && unix.Kill(pid, 0) == nil
		why = e.turnAway(c)
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		return pid, why, taken
	}
	if pid, why, _ := judged("in the jail"); why != fmt.Sprintf("process %d is in the jail of blog", pid) {
		t.Errorf("one in the jail: %q", why)
	}
	if _, why, _ := judged("beside"); why != "" {
		t.Errorf("one of the host's: %q", why)
	}
	count := scaled(100, 1000)
	recycled := 0
	for range count {
		_, why, taken := judged("in the jail, and ends")
		if why == "" || strings.Contains(why, "process") && strings.Contains(why, "blog") {
			t.Errorf("one that has ended is taken for another: %q", why)
		}
		if taken {
			recycled++
		}
	}
	t.Logf("%d of %d pids had a new owner", recycled, count)
	if recycled < count/2 {
		t.Error("too few to tell")
	}
}
