package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// routerPID is the router's, as the instance has it on record.
func (r *realm) routerPID() (pid int) {
	_, _ = fmt.Sscan(r.read("/run/fiefdom/emperor/router"), &pid)
	return pid
}

// killRouter kills the router and waits until the next one serves. One that dies
// young again and again is away for a second, and on a machine that is busy with
// other tests for a few. (TestSoakRestartUnderLoad has several tries for what is
// usual.)
func (r *realm) killRouter() {
	r.t.Helper()
	pid := r.routerPID()
	r.kill(pid)
	began := time.Now()
	nettest.Eventually(r.t, patience, "another router serves", func() bool {
		if now := r.routerPID(); now == pid || now == 0 {
			return false
		}
		stats, err := r.stats()
		return err == nil && stats.PID != pid
	})
	if took := time.Since(began); took > time.Duration(scaled(5, 1))*time.Second {
		r.t.Errorf("the router was away for %v", took.Round(time.Millisecond))
	}
}

// uwsgiStats is the document of uWSGI's stats server.
type uwsgiStats struct {
	Version string
	PID     int
	UID     int
	GID     int
	Cwd     string
	Peers   []struct {
		Addr    string
		Addr32  uint32 `json:"addr_32"`
		UID     int
		GID     int
		PID     int
		Tx, Rx  uint64
		Dropped uint64
	}

	Goroutines int // ours
}

func (r *realm) stats() (s uwsgiStats, err error) {
	c, err := net.Dial("unix", r.Path("/run/fiefdom/emperor/stats.sock"))
	if err != nil {
		return s, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return s, err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

func TestStatsSocketSpeaksUWSGI(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": "[uwsgi]\ntuntap-device-address = 10.9.0.7\ncommand = AGENT\n"})
	s := r.reach("blog")
	stats, err := r.stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Version == "" || stats.PID != r.routerPID() || stats.UID != 65519 || len(stats.Peers) != 1 {
		t.Fatalf("stats: %+v; the router's pid is %d", stats, r.routerPID())
	}
	p, ps := stats.Peers[0], r.ps("blog")
	if p.Addr != "10.9.0.7" || p.Addr32 != 0x0700090a {
		t.Errorf("peer: %+v", p)
	}
	// uWSGI counts for the router, with headers; ps for the vassal.
	if p.Tx == 0 || p.Rx == 0 || p.Tx > ps.RxBytes+4*1000 || ps.RxBytes == 0 {
		t.Errorf("peer: %+v, ps: %+v", p, ps)
	}
	if s.TxBytes > ps.TxBytes {
		t.Errorf("sent bytes went from %d to %d", s.TxBytes, ps.TxBytes)
	}
}

// Packets of strangers are read by a process that can do nothing else.
func TestRouterIsNobody(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	r.reach("blog")
	check := func() {
		t.Helper()
		status := statusOf(r.proc(r.routerPID(), "status"))
		for field, want := range map[string]string{
			"Uid": "65519 65519 65519 65519", "Gid": "65519 65519 65519 65519", "Groups": "",
			"CapInh": noCaps, "CapPrm": noCaps, "CapEff": noCaps, "CapAmb": noCaps, "NoNewPrivs": "1", "Seccomp": "2",
		} {
			if got := status[field]; got != want {
				t.Errorf("%s is %q, want %q", field, got, want)
			}
		}
	}
	check()
	r.killRouter()
	check()
}

// serveData serves size bytes in parts and calls step after each of them. The
// bytes are the same each time; it returns their SHA-256 too.
func serveData(size, parts int, step func(part int)) (http.HandlerFunc, string) {
	write := func(w io.Writer, done func(part int)) {
		source, part := rand.NewChaCha8([32]byte{1}), make([]byte, size/parts)
		for i := range parts {
			_, _ = source.Read(part)
			_, _ = w.Write(part)
			done(i)
		}
	}
	hash := sha256.New()
	write(hash, func(int) {})
	return func(w http.ResponseWriter, _ *http.Request) {
		write(w, func(part int) {
			w.(http.Flusher).Flush()
			step(part)
		})
	}, fmt.Sprintf("%x", hash.Sum(nil))
}

// A router that dies under load costs time and nothing else.
func TestSoakKilledRouterDropsNoConnection(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": agentIni, "shop": "[uwsgi]\ntuntap-device-address = 10.9.0.7\ncommand = AGENT\n",
	})
	kills, size := scaled(3, 100), scaled(32<<20, 1<<30)
	steps, killed := make(chan int, kills+1), make(chan struct{})
	handler, want := serveData(size, kills+1, func(i int) {
		if steps <- i; i == kills-1 {
			<-killed // so that all of it happens during the download
		}
	})
	r.inet(nettest.InetAddr4, handler)
	blog, shop := r.reach("blog"), r.reach("shop")
	before := map[string]emperor.Status{"blog": blog, "shop": shop}
	emperorPID := r.read("/run/fiefdom/emperor/lock")

	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := r.sh(blog, "curl -sS -m 600 http://198.51.100.2/ | sha256sum")
		done <- result{out, err}
	}()
	for range kills {
		select {
		case <-steps: // the server goes on: its bytes are under way
		case <-time.After(patience):
			t.Fatal("the download does not go on")
		}
		r.killRouter()
	}
	close(killed)
	select {
	case got := <-done:
		if got.err != nil || !strings.HasPrefix(got.out, want) {
			t.Errorf("the download's hash is %q (%v), want %s", got.out, got.err, want)
		}
	case <-time.After(2 * patience):
		t.Fatal("the download does not end")
	}
	for name, was := range before {
		now := r.ps(name)
		if now.PID != was.PID || now.Restarts != was.Restarts || !slices.Equal(now.Addresses, was.Addresses) || !r.answers(now.Addresses[0]) {
			t.Errorf("%s was %+v, is %+v", name, was, now)
		}
	}
	if now := r.read("/run/fiefdom/emperor/lock"); now != emperorPID {
		t.Errorf("the emperor's pid was %s, is %s", emperorPID, now)
	}
}

// Datagrams wait in the devices' queues while there is no router.
func TestKilledRouterLosesNoDatagram(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	s := r.reach("blog")
	var server net.PacketConn
	r.Inet.Do(t, func() {
		var err error
		if server, err = net.ListenPacket("udp", netip.AddrPortFrom(nettest.InetAddr4, 7777).String()); err != nil {
			t.Fatal(err)
		}
	})
	defer server.Close()
	halfway := make(chan struct{})
	go func() { // ends with the socket
		buf := make([]byte, 100)
		for n := 0; ; n++ {
			size, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 100 {
				close(halfway)
			}
			_, _ = server.WriteTo(buf[:size], from)
		}
	}()
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := r.sh(s, "/usr/bin/python3 -c '"+pingPong+"'")
		done <- result{out, err}
	}()
	select {
	case <-halfway:
	case <-time.After(patience):
		t.Fatal("no datagrams come")
	}
	r.killRouter()
	got := <-done
	// One packet of each direction may have been in the router's own hands.
	var echoed int
	if _, err := fmt.Sscan(got.out, &echoed); got.err != nil || err != nil || echoed < 498 {
		t.Errorf("%q of 500 datagrams came back (%v)", got.out, got.err)
	}
}

// pingPong sends 500 numbered datagrams, one a millisecond, and prints how many
// different ones came back.
const pingPong = `
import select, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("198.51.100.2", 7777))
got = set()
for i in range(500):
    s.send(b"%d" % i)
    while select.select([s], [], [], 0.001)[0]:
        got.add(s.recv(100))
end = time.time() + 5
while len(got) < 500 and time.time() < end:
    if select.select([s], [], [], 0.1)[0]:
        got.add(s.recv(100))
print(len(got))
`
