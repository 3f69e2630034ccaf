package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
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
	nettest.Tuntap(t)
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
