package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap"
)

func (r *rig) peers(t *testing.T) []tuntap.PeerStats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s, err := r.Snapshot(ctx)
	if err != nil || len(s) != 1 {
		return nil
	}
	return s[0].Peers
}

func (r *rig) hasBlog(t *testing.T) func() bool {
	return func() bool {
		return slices.ContainsFunc(r.peers(t), func(p tuntap.PeerStats) bool {
			return p.Vassal == "blog" && slices.Contains(p.Addresses, netip.MustParseAddr("10.9.0.7"))
		})
	}
}

func TestKilledRouterIsBackWithItsPeers(t *testing.T) {
	r := newRig(t)
	r.run(t)
	if !r.hasBlog(t)() {
		t.Fatalf("%+v", r.peers(t))
	}
	before := r.PID()
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	nettest.Eventually(t, 5*time.Second, "a new router with the peer", func() bool { return r.PID() != before && r.hasBlog(t)() })
	t.Logf("back after %v", time.Since(began))
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pids) != 2 || len(r.registered) < 2 || r.registered[1] != (Registration{"tun0", "blog", netip.MustParseAddr("10.9.0.7")}) {
		t.Errorf("pids %v, registered %v", r.pids, r.registered)
	}
}

// What was changed is known to the next router too, whenever it was.
func TestChangeOutlivesARouter(t *testing.T) {
	r := newRig(t)
	r.run(t)
	stop := make(chan struct{})
	done := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			n++
			err := r.Change("tun0", func(c *tuntap.NetworkConfig) {
				c.Reserved = map[netip.Addr]string{netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + n%200)}): "shop"}
			})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for range 4 {
		nettest.Eventually(t, 10*time.Second, "the peer", r.hasBlog(t))
		before := r.PID()
		if err := unix.Kill(before, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, 10*time.Second, "a new router", func() bool { pid := r.PID(); return pid != before && pid != 0 })
	}
	close(stop)
	<-done
	nettest.Eventually(t, 10*time.Second, "the peer", r.hasBlog(t))
	if err := r.Change("tun0", func(c *tuntap.NetworkConfig) { c.Own = append(c.Own, netip.MustParseAddr("10.9.0.7")) }); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 10*time.Second, "the router took the address", func() bool { return !r.hasBlog(t)() })
	if err := r.Change("none", func(*tuntap.NetworkConfig) {}); err == nil {
		t.Error("an unknown network was changed")
	}
}

func TestOrderlyStop(t *testing.T) {
	r := newRig(t)
	nettest.NoLeaks(t)
	stop := r.run(t)
	pid := r.PID()
	stop()
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the router: %v", err)
	}
	if r.PID() != 0 {
		t.Errorf("pid %d", r.PID())
	}
	if _, err := r.Snapshot(t.Context()); err == nil {
		t.Error("a snapshot of no router")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pids) != 1 {
		t.Errorf("%d routers", len(r.pids))
	}
}

// Nobody dies with the emperor: the router goes on when its end is closed.
func TestRouterOutlivesItsKeeper(t *testing.T) {
	r := newRig(t)
	w, theirs, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	process, err := r.start(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Kill(); _, _ = process.Wait() })
	r.current = w
	if err := r.lead(w); err != nil {
		t.Fatal(err)
	}
	for served := false; !served; {
		var report report
		files, err := w.receive(&report)
		if err != nil {
			t.Fatal(err)
		}
		closeAll(files)
		served = report.Serving
	}
	w.conn.Close()
	for range 3 {
		if got := r.readStats(t); !strings.Contains(got, "10.9.0.7") {
			t.Errorf("stats: %s", got)
		}
	}
}

func (r *rig) readStats(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("unix", r.stats)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Errorf("no JSON: %s", b)
	}
	return string(b)
}

// Clients of the stats server that do not read keep nobody out for long.
func TestStatsServerIsBounded(t *testing.T) {
	r := newRig(t)
	r.run(t)
	for range 3 * statsClients {
		c, err := net.Dial("unix", r.stats)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := r.readStats(t); !strings.Contains(got, fmt.Sprintf(`"pid": %d`, r.PID())) {
		t.Errorf("%s", got)
	}
}

func TestFirstStartThatFails(t *testing.T) {
	r := newRig(t)
	nettest.NoLeaks(t)
	r.Rejoin = func() error { return unix.Kill(r.PID(), unix.SIGKILL) }
	err := r.Run(t.Context(), func() { t.Error("ready although it never served") })
	if !errors.Is(err, errStart) {
		t.Errorf("got %v", err)
	}
}

func TestCrashLoopIsSlowedDown(t *testing.T) {
	r := newRig(t)
	r.run(t)
	began := time.Now()
	deaths := 0
	last := 0
	for time.Since(began) < 2*time.Second {
		if pid := r.PID(); pid != 0 && pid != last {
			last = pid
			if unix.Kill(pid, unix.SIGKILL) == nil {
				deaths++
			}
		}
		time.Sleep(time.Millisecond)
	}
	if most := crashes + 2 + int(time.Since(began)/crashLoop); deaths > most {
		t.Errorf("%d routers in %v, want at most %d", deaths, time.Since(began), most)
	}
	if deaths < 3 {
		t.Errorf("%d routers only", deaths)
	}
	nettest.Eventually(t, 10*time.Second, "it is back in the end", r.hasBlog(t))
}

func TestForeignConnectionsAreIdentified(t *testing.T) {
	r := newRig(t)
	r.run(t)
	cmd := exec.Command("/proc/self/exe", dialerProcess, r.socket)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	nettest.Eventually(t, 10*time.Second, "its pid", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Contains(r.identified, cmd.Process.Pid)
	})
}

// A router that says what it should not costs itself, never the emperor.
func TestHostileRouter(t *testing.T) {
	r := newRig(t)
	r.answers = map[uint64]chan *report{}
	ours, theirs := newTestPair(t)
	served := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.read(ours, func() { served++ })
	}()
	for _, say := range []report{
		{Serving: true},
		{Serving: true},
		{Snapshot: &snapshot{ID: 99}},
		{Snapshot: &snapshot{}},
		{Answer: &answer{ID: 99}},
		{Identify: 5},
		{Registered: &Registration{}},
		{Closed: &Closing{}},
		{Error: "x"},
		{},
	} {
		if err := theirs.send(say); err != nil {
			t.Fatal(err)
		}
	}
	if err := theirs.send(report{Serving: true}, 0, 1, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.conn.Write([]byte{255, 255, 255, 255}); err != nil {
		t.Fatal(err)
	}
	<-done
	if served != 3 {
		t.Errorf("%d", served)
	}
}

func TestAddresses(t *testing.T) {
	r := newRig(t)
	own := func() []netip.Addr {
		r.Keeper.mu.Lock()
		defer r.Keeper.mu.Unlock()
		return r.Networks[0].Config.Own
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- netns.Do(r.host.Handle, func() error { return r.FollowAddresses(ctx) })
	}()
	has := func(s string) func() bool {
		return func() bool { return slices.Contains(own(), netip.MustParseAddr(s)) }
	}
	set := func(change func(netlink.Link, *netlink.Addr) error, s string) {
		t.Helper()
		r.host.Do(t, func() {
			link, err := netlink.LinkByName("tun0")
			if err == nil {
				err = change(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(s)), Flags: unix.IFA_F_NODAD})
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	nettest.Eventually(t, 10*time.Second, "the first address", has("10.9.0.1"))
	set(netlink.AddrAdd, "10.9.0.99/24")
	nettest.Eventually(t, 10*time.Second, "an added one", has("10.9.0.99"))
	set(netlink.AddrAdd, "fd09::1/64")
	nettest.Eventually(t, 10*time.Second, "an IPv6 one", has("fd09::1"))
	set(netlink.AddrDel, "10.9.0.99/24")
	nettest.Eventually(t, 10*time.Second, "it is gone again", func() bool { return !has("10.9.0.99")() })
	r.Keeper.mu.Lock()
	if host := r.Networks[0].Config.Host; !slices.Contains(host, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("the host's: %v", host)
	}
	r.Keeper.mu.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMainArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"1"}, {"x", "1", "1"}} {
		if Main(args) == 0 {
			t.Errorf("%q were taken", args)
		}
	}
}
