package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	// realUWSGI is a real uWSGI's emperor with its router, as its document has it.
	realUWSGI = `[uwsgi]
plugins-dir = /usr/lib/uwsgi/plugins
plugin = tuntap
master = true
tuntap-router = emperor0 /run/t/tuntap.socket /run/t/tuntap.stats
exec-as-root = ifconfig emperor0 10.9.0.1 netmask 255.255.0.0 up
emperor-use-clone = net
emperor = /run/t/theirs
`
	// itsVassal is one of its own.
	itsVassal = `[uwsgi]
plugins-dir = /usr/lib/uwsgi/plugins
plugin = tuntap
jailed = true
tuntap-device = uwsgi0 /run/t/tuntap.socket
exec-as-root = echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
exec-as-root = ifconfig lo up
exec-as-root = ifconfig uwsgi0 10.9.0.20 netmask 255.255.0.0 up
exec-as-root = route add default gw 10.9.0.1
exec-as-root = ping -c 1 10.9.0.1
uid = nobody
gid = nogroup
master = true
socket = 127.0.0.1:3031
`
	bridgedByHooks = `[uwsgi]
tuntap-device = uwsgi0 /run/t/tuntap.socket
tuntap-device-rule = out 10.9.0.7 198.51.100.2 deny
exec-as-root = ifconfig lo up
exec-as-root = ifconfig uwsgi0 10.9.0.7 netmask 255.255.0.0 up
exec-as-root = route add default gw 10.9.0.1
exec-as-root = ping -c 1 -W 5 10.9.0.1
command = AGENT
`
	bridgedNatively = `[uwsgi]
tuntap-device = eth0 /run/t/tuntap.socket
tuntap-device-address = 10.9.0.8
tuntap-device-gateway = 10.9.0.1
cap = net_raw
command = AGENT
`
)

// bridgedRealm is an emperor of ours beside a real uWSGI, whose router its
// vassals use.
type bridgedRealm struct {
	*realm
	uwsgi *exec.Cmd
}

// newBridgedRealm lays the files of both and starts uWSGI.
func newBridgedRealm(t *testing.T, w *nettest.World, ini string, vassals map[string]string) *bridgedRealm {
	t.Helper()
	if _, err := os.Stat("/usr/lib/uwsgi/plugins/tuntap_plugin.so"); err != nil {
		t.Skipf("no uWSGI with its tuntap plugin here: %v", err)
	}
	r := &bridgedRealm{realm: layRealm(t, w, "emperor", "[uwsgi]\nemperor = /run/t/vassals\n")}
	// A ping takes the host's advice to go straight for an error.
	w.Run(t, "sh", "-e", "-c", `echo 1 >/proc/sys/net/ipv4/ip_forward; mkdir /run/t/theirs; mkdir -m 777 /run/t/s
for c in all default; do echo 0 >/proc/sys/net/ipv4/conf/$c/send_redirects; done`)
	r.write("/run/t/uwsgi.ini", ini)
	for name, text := range vassals {
		r.drop(name, text)
	}
	r.before = r.Snapshot(t)
	r.startUWSGI()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("uWSGI said:\n%s", r.read("/run/t/uwsgi.log"))
		}
	})
	return r
}

// startUWSGI starts it and waits for its router.
func (r *bridgedRealm) startUWSGI() {
	r.t.Helper()
	log, err := os.OpenFile(r.Path("/run/t/uwsgi.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.uwsgi = exec.Command("uwsgi", "/run/t/uwsgi.ini")
	r.uwsgi.Stdout, r.uwsgi.Stderr = log, log
	r.Start(r.t, r.uwsgi)
	nettest.Eventually(r.t, patience, "uWSGI's router answers", func() bool { _, err := r.routers(); return err == nil })
}

// stopUWSGI ends all of its processes.
func (r *bridgedRealm) stopUWSGI() {
	r.t.Helper()
	if err := r.uwsgi.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = r.uwsgi.Process.Kill() })
	defer late.Stop()
	_ = r.uwsgi.Wait() // its exit code is its own
	if out, err := r.Try(r.t, "sh", "-c", "pkill -KILL -x uwsgi; while pgrep -x uwsgi; do sleep 0.05; done"); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
}

// routers asks uWSGI's router for its stats.
func (r *bridgedRealm) routers() (stats uwsgiStats, err error) {
	c, err := net.Dial("unix", r.Path("/run/t/tuntap.stats"))
	if err != nil {
		return stats, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	return stats, json.NewDecoder(c).Decode(&stats)
}

// stream moves bytes over TCP from one vassal to another while during runs,
// and compares the hashes of both ends.
func (r *bridgedRealm) stream(from, to emperor.Status, port int, during func()) {
	r.t.Helper()
	const half = "head -c 4M /dev/urandom"
	r.Run(r.t, "rm", "-f", "/run/t/s/go", "/run/t/s/begun")
	type result struct {
		out string
		err error
	}
	sums := make(chan result, 2)
	go func() {
		out, err := r.sh(to, fmt.Sprintf("nc -l -p %d </dev/null | sha256sum", port))
		sums <- result{out, err}
	}()
	r.mustSh(to, fmt.Sprintf("until ss -ltn | grep -q :%d; do sleep 0.05; done", port))
	go func() {
		out, err := r.sh(from, fmt.Sprintf(`mkfifo /run/t/s/fifo%[2]d; sha256sum </run/t/s/fifo%[2]d &
(%[3]s; touch /run/t/s/begun; until [ -e /run/t/s/go ]; do sleep 0.02; done; %[3]s) | tee /run/t/s/fifo%[2]d | nc -N %[1]v %[2]d; wait`, to.Addresses[0], port, half))
		sums <- result{out, err}
	}()
	nettest.Eventually(r.t, patience, "half of the stream is sent", func() bool {
		_, err := os.Stat(r.Path("/run/t/s/begun"))
		return err == nil
	})
	during()
	r.write("/run/t/s/go", "")
	one, two := <-sums, <-sums
	if one.err != nil || two.err != nil || one.out != two.out || len(one.out) < 64 {
		r.t.Errorf("the hashes are %q (%v) and %q (%v)", one.out, one.err, two.out, two.err)
	}
}

// Two vassals of ours and one of uWSGI's own meet in a real uWSGI's router, and
// go on when it comes back.
func TestVassalsOfARealUWSGIsRouter(t *testing.T) {
	t.Parallel()
	r := newBridgedRealm(t, nettest.NewWorld(t), realUWSGI, map[string]string{"blog": bridgedByHooks, "shop": bridgedNatively})
	r.write("/run/t/theirs/wiki.ini", itsVassal)
	if out := r.mustRun("check", "/run/t/emperor.ini"); out != "" {
		t.Errorf("check says:\n%s", out)
	}
	r.start()
	blog, shop := r.reach("blog"), r.reach("shop")
	if fmt.Sprint(blog.Addresses, shop.Addresses) != "[10.9.0.7] [10.9.0.8]" {
		t.Errorf("addresses %v and %v", blog.Addresses, shop.Addresses)
	}
	if blog.RxBytes == 0 || blog.TxBytes == 0 {
		t.Errorf("no traffic is counted: %+v", blog)
	}
	if out := r.mustRun("ps"); !strings.Contains(out, "10.9.0.7") || !strings.Contains(out, "10.9.0.8") {
		t.Errorf("ps:\n%s", out)
	}
	wiki := netip.MustParseAddr("10.9.0.20")
	meet := func() {
		t.Helper()
		r.reach("blog")
		r.reach("shop")
		r.mustSh(shop, "ping -c 1 -W 5 10.9.0.7")
		r.mustSh(blog, "ping -c 1 -W 5 10.9.0.8")
		nettest.Eventually(t, patience, "uWSGI's own vassal answers ours", func() bool {
			_, err := r.sh(shop, "ping -c 1 -W 1 "+wiki.String())
			return err == nil
		})
	}
	meet()
	r.stream(shop, blog, 9000, func() {})
	// The rule was taken.
	if out, err := r.sh(blog, "ping -c 1 -W 1 198.51.100.2"); err == nil {
		t.Errorf("a denied ping:\n%s", out)
	}

	// Its router process is killed: it starts another.
	r.stream(blog, shop, 9001, func() {
		stats, err := r.routers()
		if err != nil {
			t.Fatal(err)
		}
		r.kill(stats.PID)
		nettest.Eventually(t, patience, "another router has our vassals", func() bool {
			now, err := r.routers()
			return err == nil && now.PID != stats.PID && r.has(now, "10.9.0.7", "10.9.0.8")
		})
	})
	meet()
	// All of it goes, and comes back.
	r.stream(shop, blog, 9002, func() {
		r.stopUWSGI()
		r.await("blog", "has no router", func(s emperor.Status) bool {
			return len(s.Warnings) == 1 && strings.Contains(s.Warnings[0], "has no router")
		})
		r.startUWSGI()
	})
	meet()
	if now := r.ps("blog"); now.PID != blog.PID || len(now.Warnings) > 0 {
		t.Errorf("blog was disturbed: %+v", now)
	}
	r.killBridges()
	meet()
	r.stopUWSGI()
	r.stop(syscall.SIGTERM)
}

// The next emperor ends the bridges of one that was killed, with and without
// cgroups; stopping and removing a vassal ends its bridge. The router hears of
// the app's ids if it asks.
func TestBridgesEndWithWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for name, world := range map[string]func(*testing.T) *nettest.World{
		"with cgroups":    func(t *testing.T) *nettest.World { return nettest.NewWorld(t) },
		"without cgroups": withoutCgroups,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const told = "tuntap-use-credentials = true\n"
			r := newBridgedRealm(t, world(t), realUWSGI+told, map[string]string{
				"blog": strings.Replace(bridgedByHooks, "tuntap-device-rule", "uid = 2001\ngid = 2002\n"+told+"tuntap-device-rule", 1),
				"shop": bridgedNatively + told,
			})
			bridges := func(want int) {
				t.Helper()
				nettest.Eventually(t, patience, fmt.Sprint(want, " bridges run"), func() bool { return len(r.bridges()) == want })
			}
			r.start()
			r.reach("blog")
			shop := r.reach("shop")
			stats, err := r.routers()
			if err != nil {
				t.Fatal(err)
			}
			uids := map[string][2]int{}
			for _, p := range stats.Peers {
				uids[p.Addr] = [2]int{p.UID, p.GID}
			}
			if want := map[string][2]int{"10.9.0.7": {2001, 2002}, "10.9.0.8": {shop.UID, shop.UID}}; !maps.Equal(uids, want) {
				t.Errorf("the router was told %v, want %v", uids, want)
			}
			bridges(2)
			before := r.bridges()
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			r.wait()
			if !r.answers(shop.Addresses[0]) {
				t.Error("the vassal went down with its emperor")
			}
			r.start()
			r.reach("blog")
			r.reach("shop")
			bridges(2)
			for _, pid := range r.bridges() {
				if slices.Contains(before, pid) {
					t.Errorf("bridge %s of the killed emperor lives", pid)
				}
			}
			r.mustRun("stop", "shop")
			bridges(1)
			r.mustRun("start", "shop")
			r.reach("shop")
			r.mustRun("restart", "blog")
			r.reach("blog")
			bridges(2)
			r.remove("blog")
			bridges(1)
			r.stopUWSGI()
			r.stop(syscall.SIGTERM)
		})
	}
}

// A socket that nobody serves is an error of the start, which says so, and no
// error of the ini.
func TestNoRouterAtASocket(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": bridgedNatively})
	s := r.awaitState("blog", emperor.Backoff)
	for _, want := range []string{"connect device eth0 to router /run/t/tuntap.socket", "no such file or directory", "/run/fiefdom/emperor/fief0.sock"} {
		if !strings.Contains(s.Error, want) {
			t.Errorf("the error %q does not have %q", s.Error, want)
		}
	}
	if out := r.mustRun("check", "/run/t/emperor.ini"); !strings.Contains(out, "no other router is there now (warning)") {
		t.Errorf("check says:\n%s", out)
	}
}

// has says whether uWSGI's router knows the addresses.
func (r *bridgedRealm) has(s uwsgiStats, addrs ...string) bool {
	text, _ := json.Marshal(s)
	for _, a := range addrs {
		if !strings.Contains(string(text), `"`+a+`"`) {
			return false
		}
	}
	return true
}

// bridges are the pids of the bridge processes, in the world.
func (r *bridgedRealm) bridges() []string {
	r.t.Helper()
	out, _ := r.Try(r.t, "pgrep", "-f", "^fiefdom bridge [0-9]") // it fails without any
	return strings.Fields(out)
}

// killBridges kills the bridge processes.
func (r *bridgedRealm) killBridges() {
	r.t.Helper()
	pids := r.bridges()
	if len(pids) != 2 {
		r.t.Errorf("bridges %v run; want two", pids)
	}
	r.Run(r.t, "kill", append([]string{"-KILL"}, pids...)...)
}

// Vassals of one instance live in another's network, by both families, and are
// back after its router has died: a server that only answers as well.
func TestVassalsOfAnotherInstancesRouter(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	theirs := layRealm(t, w, "routers", `[uwsgi]
emperor = /run/t/none
tuntap-router = fief0 /run/t/fief0.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router-address = fd09::1/64
tuntap-router-isolate = off
`)
	theirs.start()
	ours := layRealm(t, w, "emperor", "[uwsgi]\nemperor = /run/t/vassals\n")
	for name, host := range map[string]string{"blog": "7", "shop": "8"} {
		ours.drop(name, fmt.Sprintf(`[uwsgi]
tuntap-device = eth0 /run/t/fief0.sock
tuntap-device-address = 10.9.0.%[1]s fd09::%[1]s
tuntap-device-gateway = 10.9.0.1
tuntap-device-gateway = fd09::1
cap = net_raw
command = AGENT
`, host))
	}
	ours.start()
	blog, shop := ours.reach("blog"), ours.reach("shop")
	meet := func() {
		t.Helper()
		ours.reach("blog")
		ours.reach("shop")
		ours.mustSh(shop, "ping -c 1 -W 5 10.9.0.7 && ping -c 1 -W 5 fd09::7")
	}
	meet()
	var router int
	if _, err := fmt.Sscan(theirs.read("/run/fiefdom/routers/router"), &router); err != nil {
		t.Fatal(err)
	}
	theirs.kill(router)
	for _, s := range []emperor.Status{blog, shop} {
		for _, bits := range []int{32, 128} {
			addr := addressOf(t, s, bits)
			nettest.Eventually(t, patience, s.Name+" answers again at "+addr.String(), func() bool { return ours.answers(addr) })
		}
	}
	meet()
	for name, was := range map[string]emperor.Status{"blog": blog, "shop": shop} {
		if now := ours.ps(name); now.PID != was.PID {
			t.Errorf("%s was disturbed: %+v", name, now)
		}
	}
	if err := theirs.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := theirs.wait(); code != exitOK {
		t.Errorf("the routers' emperor ended with %d", code)
	}
	ours.before = theirs.before // what both have left shows when both are gone
	ours.stop(syscall.SIGTERM)
}
