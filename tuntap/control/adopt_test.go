package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/internal/pidfd"
	"fiefdom/tuntap"
	"fiefdom/tuntap/tuntest"
)

var descriptorsIn = nettest.OpenFiles

// The emperor is killed again and again; nobody else notices.
func TestRouterIsAdopted(t *testing.T) {
	for _, threads := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			d := newDynasty(t, "blog", "shop")
			d.Threads, d.Rules = threads, true
			first := d.crown(t)
			if first.Adopted {
				t.Fatal("there was a router")
			}
			flow := d.flow(t)
			foreign := d.foreigner(t, "10.9.0.99")
			foreign.ping()
			denied := netip.MustParseAddrPort("203.0.113.9:9")
			foreign.send(tuntest.UDP(netip.AddrPortFrom(foreign.addr, 9), denied, []byte("x")))
			foreign.ping()
			flow.goesOn()
			before, last := first.snapshot(), first
			rounds, descriptors := 50, 0
			if threads > 1 {
				rounds = 15
			}
			for i := range rounds {
				last.die()
				flow.goesOn()
				last = d.crown(t)
				if !last.Adopted || last.Router != first.Router || len(last.Devices) != 2 {
					t.Fatalf("round %d: %+v", i, last.reigning)
				}
				for _, a := range last.Devices {
					if len(a.Registered) != 1 || a.Device != "eth0" || a.Network != "tun0" {
						t.Fatalf("round %d: %+v", i, a)
					}
				}
				foreign.ping()
				flow.goesOn()
				if i < 2 {
					descriptors = max(descriptors, descriptorsIn(t, first.Router))
				}
				nettest.Eventually(t, 20*time.Second, "no more descriptors of the router", func() bool {
					return descriptorsIn(t, first.Router) <= descriptors
				})
			}
			flow.end()
			after := last.snapshot()
			if len(after.Peers) != len(before.Peers) || len(after.Out) != 1 || after.Out[0].Hits != 1 {
				t.Fatalf("%+v", after)
			}
			for i, p := range after.Peers {
				b := before.Peers[i]
				delete(p.Drops, tuntap.DropForbidden) // chatter of IPv6
				if len(p.Drops) > 0 && (p.Vassal != "" || p.Drops[tuntap.DropRule] != 1) {
					t.Errorf("%s: drops %v", p.Vassal, p.Drops)
				}
				if p.Vassal != b.Vassal || !slices.Equal(p.Addresses, b.Addresses) || p.TxPackets <= b.TxPackets {
					t.Errorf("%+v, before %+v", p, b)
				}
			}
			last.in.Close() // an orderly end is the router's, too
			if err := last.cmd.Wait(); err != nil {
				t.Error(err)
			}
			var status unix.WaitStatus
			if _, err := unix.Wait4(first.Router, &status, 0, nil); err != nil || !status.Signaled() {
				t.Errorf("the router: %v, %v", status, err)
			}
			if err := unix.Kill(first.Router, 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("the router: %v", err)
			}
		})
	}
}

// What the next emperor does not want ends, but not before he says so.
func TestAdoptedRouterSettles(t *testing.T) {
	d := newDynasty(t, "blog", "shop")
	d.crown(t).die()
	d.Drop, d.Mute = []string{"shop"}, true
	second := d.crown(t)
	if n := len(second.snapshot().Peers); n != 2 {
		t.Errorf("%d peers before he has settled", n)
	}
	second.die()
	d.Mute = false
	third := d.crown(t)
	nettest.Eventually(t, 20*time.Second, "one peer", func() bool {
		peers := third.snapshot().Peers
		return len(peers) == 1 && peers[0].Vassal == "blog"
	})
	third.die()
	d.Drop = nil
	fourth := d.crown(t)
	if len(fourth.Devices) != 1 {
		t.Errorf("%+v", fourth.Devices)
	}
	nettest.Eventually(t, 20*time.Second, "both again", func() bool { return len(fourth.snapshot().Peers) == 2 })
	fourth.die()
}

// The ini has changed while nobody reigned.
func TestAdoptedRouterLearnsWhatChanged(t *testing.T) {
	d := newDynasty(t, "blog", "shop")
	first := d.crown(t)
	flow := d.flow(t)
	flow.goesOn()
	first.die()

	d.Rules, d.Threads = true, 2
	second := d.crown(t)
	d.expectLog(t, "keeps its threads", "threads=1", "wanted=2")
	if s := second.snapshot(); second.Router != first.Router || len(s.Out) != 1 || s.Out[0].Rule.Line != 7 {
		t.Errorf("the rule did not come: %+v", s)
	}
	flow.goesOn()
	second.die()

	// Another socket is another network: its peers are closed, and come back with
	// what they had, since the emperor hands them over.
	flow.end()
	old := d.Socket
	d.Socket += "2"
	third := d.crown(t)
	if !third.Adopted || third.Router != first.Router {
		t.Errorf("%+v", third.reigning)
	}
	again := d.flow(t)
	again.goesOn()
	again.end()
	if _, err := tuntap.Dial(old); err == nil {
		t.Error("somebody listens on the old socket")
	}
	third.die()
}

// A router that dies after its adoption is started again, as any other.
func TestAdoptedRouterDies(t *testing.T) {
	d := newDynasty(t, "blog", "shop")
	d.crown(t).die()
	second := d.crown(t)
	flow := d.flow(t)
	flow.goesOn()
	if err := unix.Kill(second.Router, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(second.Router, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	flow.goesOn()
	flow.end()
	d.expectLog(t, `msg="router ended; starting it again"`, "signal: killed")
	second.die()
	third := d.crown(t)
	if !third.Adopted || third.Router == second.Router {
		t.Errorf("%+v", third.reigning)
	}
	third.die()
}

// expectLog waits for a line with all of these texts.
func (d *dynasty) expectLog(t *testing.T, texts ...string) {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, fmt.Sprintf("a line of the log with %q", texts), func() bool {
		b, err := os.ReadFile(filepath.Join(d.Dir, "log"))
		for line := range strings.Lines(string(b)) {
			if err == nil && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return true
			}
		}
		return false
	})
}

// Who knocks at the door and is no emperor changes nothing.
func TestStrangersAtTheDoor(t *testing.T) {
	d := newDynasty(t, "blog", "shop")
	first := d.crown(t)
	flow := d.flow(t)
	door := filepath.Join(d.Dir, "door")
	silent := knock(t, door)
	hear(t, silent, first.Router)
	turnedAway(t, "silent", silent)

	old := knock(t, door)
	hear(t, old, first.Router)
	if err := old.send(order{Take: protocol + 1}); err != nil {
		t.Fatal(err)
	}
	turnedAway(t, "another version", old)

	rude := knock(t, door)
	hear(t, rude, first.Router)
	if _, err := rude.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	turnedAway(t, "rude", rude)

	if st, err := os.Stat(door); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the door: %v, %v", st.Mode(), err)
	}
	if err := os.Chmod(door, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	user := exec.Command("/proc/self/exe", dialerProcess, door)
	user.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	in, err := user.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = user.Wait() }()
	d.expectLog(t, "turned away", "uid 1000")

	if n := len(first.snapshot().Peers); n != 2 {
		t.Errorf("%d peers", n)
	}
	flow.goesOn()
	flow.end()

	// A new emperor replaces the old one, who ends a router that he cannot talk to.
	next := knock(t, door)
	hear(t, next, first.Router)
	if err := next.send(order{Take: protocol}); err != nil {
		t.Fatal(err)
	}
	turnedAway(t, "the router of two emperors", next)
	d.expectLog(t, "router ended; starting it again")
}

// knock connects to a router's door.
func knock(t *testing.T, door string) *wire {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: door, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{conn: c}
}

// hear hears a router's hello.
func hear(t *testing.T, w *wire, router int) {
	t.Helper()
	var r report
	if _, err := w.receive(&r); err != nil || r.Hello == nil || r.Hello.Protocol != protocol || r.Hello.PID != router {
		t.Fatalf("%+v, %v", r, err)
	}
}

// turnedAway waits until the router hangs up.
func turnedAway(t *testing.T, what string, w *wire) {
	t.Helper()
	if _, err := w.receive(new(report)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v", what, err)
	}
}

// How a stranger ended is what the kernel tells, once it was reaped.
func TestExitStatusOfAStranger(t *testing.T) {
	for script, want := range map[string]string{"exit 3": "exit status 3", "exit 0": "exit status 0", "kill -9 $$": "signal: killed"} {
		cmd := exec.Command("/bin/sh", "-c", "read line; "+script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end, err := pidfd.Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		p := stranger(cmd.Process.Pid, end)
		in.Close()
		_ = cmd.Wait()
		if !kernelTells() {
			want = "exit status unknown"
		}
		if how, err := p.wait(); err != nil || how != want {
			t.Errorf("%s: %q, %v; want %q", script, how, err, want)
		}
		if err := p.kill(); err == nil {
			t.Error("a process that was waited for is killed")
		}
	}
}

// kernelTells says whether the kernel keeps how a process ended for its pidfds
// (Linux 6.15).
func kernelTells() bool {
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		return false
	}
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}
