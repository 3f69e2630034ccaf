package tuntap

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
)

// startUWSGI runs a real uWSGI whose device uwsgi0 joins the router at socket.
func startUWSGI(t *testing.T, ns *nettest.NS, socket string, args ...string) {
	t.Helper()
	plugin := nettest.Tuntap(t)
	cmd := exec.Command("uwsgi", append([]string{
		"--plugins-dir", filepath.Dir(plugin), "--plugin", "tuntap", "--jailed",
		"--tuntap-device", "uwsgi0 " + socket,
		"--master", "--uid", "nobody", "--gid", "nogroup", "--socket", "127.0.0.1:3031",
	}, args...)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	t.Cleanup(func() {
		log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("uWSGI said:\n%s", text)
		}
	})
	ns.Start(t, cmd)
}

// A real uWSGI's device is a foreign peer: frames, its rule block, IPv6
// chatter first.
func TestRealUWSGIDevice(t *testing.T) {
	nettest.Root(t)
	w := newRealWorld(t, native())
	ns := nettest.NewNS(t)
	startUWSGI(t, ns, w.socket,
		"--tuntap-device-rule", "out 10.9.0.7 198.51.100.9 deny",
		"--exec-as-root", "ip address add 10.9.0.7/16 dev uwsgi0 && ip link set uwsgi0 up && ip route add default via 10.9.0.1",
		"--exec-as-root", "ping -c 1 -W 5 10.9.0.1")
	h := w.await("registered")
	if h.addr != blog {
		t.Fatalf("registered %v", h.addr)
	}
	transfer(t, w.hostNS, ns, netip.AddrPortFrom(blog, 8080))
	transfer(t, ns, w.hostNS, netip.AddrPortFrom(gateway, 8080))

	s := w.r.Snapshot()[0].Peers[0]
	if s.PID == 0 || s.Drops[DropForbidden] == 0 {
		t.Errorf("pid %d, drops %v; want its pid and its chatter counted", s.PID, s.Drops)
	}
	tryRun(t, ns, "ping", "-c", "1", "-W", "1", "198.51.100.9")
	if got := w.r.Snapshot()[0].Peers[0].Drops[DropRule]; got != 1 {
		t.Errorf("%d drops by its own rules; want 1", got)
	}
	cfg := native()
	cfg.Out = []firewall.Rule{{Action: firewall.Reject, Dst: single(internet)}}
	if err := w.r.Update(cfg); err != nil {
		t.Fatal(err)
	}
	if out := tryRun(t, ns, "ping", "-c", "1", "-W", "2", internet.String()); !strings.Contains(out, "filtered") {
		t.Errorf("a rejected ping: %s", out)
	}
}
