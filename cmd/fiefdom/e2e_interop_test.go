package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	// ourRouter stands where the real one of realUWSGI does.
	ourRouter = `[uwsgi]
emperor = /run/t/vassals
tuntap-router = fief0 /run/t/tuntap.socket /run/fiefdom/emperor/stats.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router-isolate = off
`
	// onlyDevices is a real uWSGI's emperor without a router.
	onlyDevices = `[uwsgi]
master = true
emperor-use-clone = net
emperor = /run/t/theirs
`
	ourDevice = `[uwsgi]
tuntap-device = eth0 /run/t/tuntap.socket
tuntap-device-address = ADDRESS
tuntap-device-gateway = 10.9.0.1
cap = net_raw
writable = /run/t/s
command = AGENT
`
	realDevice = `[uwsgi]
plugins-dir = /usr/lib/uwsgi/plugins
plugin = tuntap
jailed = true
tuntap-device = uwsgi0 /run/t/tuntap.socket
exec-as-root = echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range
exec-as-root = ifconfig lo up
exec-as-root = ifconfig uwsgi0 ADDRESS netmask 255.255.0.0 up
exec-as-root = route add default gw 10.9.0.1
exec-as-root = ping -c 1 -W 10 10.9.0.1
uid = nobody
gid = nogroup
master = true
socket = 127.0.0.1:3031
attach-daemon = AGENT
`
	// barred keeps the first real device from the second of ours.
	barred      = "tuntap-device-rule = out 10.9.0.20 10.9.0.8 deny\n"
	credentials = "tuntap-use-credentials = true\n"
)

// meeting is two devices of ours and two of a real uWSGI's at one router.
type meeting struct {
	*bridgedRealm
	devices []emperor.Status
	port    int
}

// The four pairs of device and router: ours and a real uWSGI's.
func TestEveryDeviceAtEveryRouter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		ours        bool
		credentials bool
	}{
		{"our router", true, false},
		{"our router, which asks for credentials", true, true},
		{"a real router", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMeeting(t, c.ours, c.credentials)
			m.meet()
			if c.ours {
				m.identified(c.credentials)
				before := m.ps("our1")
				m.exchange(0, 1, m.killRouter)
				m.meet()
				if now := m.ps("our1"); now.PID != before.PID {
					t.Errorf("our1 was disturbed: %+v", now)
				}
			}
			m.stopUWSGI()
			m.Run(t, "sh", "-c", "pkill -KILL -u nobody -x agent; true") // its vassals' daemons may live on
			m.stop(syscall.SIGTERM)
		})
	}
}

func newMeeting(t *testing.T, ours, asked bool) *meeting {
	t.Helper()
	m := &meeting{port: 9000}
	for _, d := range []struct{ name, addr string }{{"our1", "10.9.0.7"}, {"our2", "10.9.0.8"}, {"real1", "10.9.0.20"}, {"real2", "10.9.0.21"}} {
		m.devices = append(m.devices, emperor.Status{Name: d.name, Addresses: []netip.Addr{netip.MustParseAddr(d.addr)}})
	}
	inis, router := map[string]string{}, ourRouter
	for i, d := range m.devices {
		text := ourDevice
		if i > 1 {
			text = realDevice
		}
		if d.Name == "real1" {
			text += barred
		}
		if i > 1 && !ours { // its router hangs up on the chatter of IPv6
			text = strings.Replace(text, "exec-as-root", "exec-as-root = echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6\nexec-as-root", 1)
		}
		if asked { // nothing flows before the privileges are dropped
			text = strings.Replace(text, "exec-as-root = ping", "exec-as-user = ping", 1) + credentials
		}
		inis[d.Name] = strings.ReplaceAll(text, "ADDRESS", d.Addresses[0].String())
	}
	mine := map[string]string{"our1": inis["our1"], "our2": inis["our2"]}
	if ours {
		if asked {
			router += credentials
		}
		m.bridgedRealm = besideOurRouter(t, router, mine)
	} else {
		m.bridgedRealm = newBridgedRealm(t, nettest.NewWorld(t), realUWSGI, mine)
		m.start()
	}
	for _, name := range []string{"real1", "real2"} {
		m.write("/run/t/theirs/"+name+".ini", inis[name])
	}
	return m
}

// besideOurRouter starts our emperor, and then a real uWSGI's, whose vassals
// join our router.
func besideOurRouter(t *testing.T, ini string, vassals map[string]string) *bridgedRealm {
	t.Helper()
	nettest.Tuntap(t)
	r := &bridgedRealm{realm: layRealm(t, nettest.NewWorld(t), "emperor", ini)}
	// Where the real router's stats are.
	r.Run(t, "sh", "-e", "-c", "mkdir /run/t/theirs; mkdir -m 777 /run/t/s; ln -s ../fiefdom/emperor/stats.sock /run/t/tuntap.stats")
	r.write("/run/t/uwsgi.ini", onlyDevices)
	for name, text := range vassals {
		r.drop(name, text)
	}
	r.start()
	r.startUWSGI()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("uWSGI said:\n%s", r.read("/run/t/uwsgi.log"))
		}
	})
	return r
}

// meet has every device ping every other one, and one of each kind stream to
// one of each kind.
func (m *meeting) meet() {
	m.t.Helper()
	for _, d := range m.devices {
		nettest.Eventually(m.t, patience, d.Name+" answers the host", func() bool { return m.answers(d.Addresses[0]) })
	}
	for i, from := range m.devices {
		for k, to := range m.devices {
			out, err := m.sh(from, "ping -c 1 -W 1 "+to.Addresses[0].String())
			// A ping is denied there, or its answer.
			if want := i+k != 3 || i == 0 || k == 0; (err == nil) != want {
				m.t.Errorf("%s pings %s: %v; want success %v\n%s", from.Name, to.Name, err, want, out)
			}
		}
	}
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {2, 0}, {3, 2}} {
		m.exchange(pair[0], pair[1], func() {})
	}
}

func (m *meeting) exchange(from, to int, during func()) {
	m.t.Helper()
	m.port++
	m.stream(m.devices[from], m.devices[to], m.port, during)
}

// identified checks what the router knows of the processes behind its peers.
func (m *meeting) identified(asked bool) {
	m.t.Helper()
	stats, err := m.stats()
	if err != nil {
		m.t.Fatal(err)
	}
	nobody := 0 // root connected
	if asked {
		nobody = 65534
	}
	found := 0
	for _, p := range stats.Peers {
		if p.Addr != "10.9.0.20" && p.Addr != "10.9.0.21" {
			continue
		}
		found++
		if p.UID != nobody || p.GID != nobody || p.PID == 0 {
			m.t.Errorf("the peer %+v is not identified; want ids %d", p, nobody)
		}
	}
	if found != 2 {
		m.t.Errorf("%d real devices are in %+v", found, stats)
	}
}

// Vassals of ours and one of a real uWSGI's on another machine meet by the UDP
// gateways of both routers, and again after ours was killed. The address of our
// gateway is a hook's to set.
func TestGatewayToARealUWSGIsRouter(t *testing.T) {
	t.Parallel()
	plugins := filepath.Dir(nettest.Tuntap(t))
	r := newRealm(t, strings.Replace(nativeNetwork, "stats.sock", "stats.sock 198.51.100.9:4040", 1)+
		"tuntap-router-route = 10.9.0.0/16 10.10.0.0/16 198.51.100.2:4040\n"+
		"exec-as-root = ip address add 198.51.100.9 dev fief0\n", map[string]string{"blog": agentIni + "cap = net_raw\n"})
	blog := r.reach("blog")
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "far.sock")
	uwsgi := func(ns *nettest.NS, args ...string) {
		args = append([]string{"--pid", "--fork", "--kill-child", "uwsgi", "--plugins-dir", plugins, "--plugin", "tuntap", "--master", "--socket", "127.0.0.1:3031"}, args...)
		log, err := os.CreateTemp(dir, "log")
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		t.Cleanup(func() {
			if text, _ := os.ReadFile(log.Name()); t.Failed() {
				t.Logf("uWSGI said:\n%s", text)
			}
		})
		cmd := exec.Command("unshare", args...)
		cmd.Stdout, cmd.Stderr = log, log
		ns.Start(t, cmd)
	}
	uwsgi(r.Inet, "--tuntap-router", "far0 "+socket+" "+socket+".stats 198.51.100.2:4040",
		"--tuntap-router-route", "10.10.0.0/16 10.9.0.0/16 198.51.100.9:4040",
		"--exec-as-root", "ifconfig far0 10.10.0.1 netmask 255.255.0.0 up")
	nettest.Eventually(t, patience, "the far router listens", func() bool { _, err := os.Stat(socket + ".stats"); return err == nil })
	far := nettest.NewNS(t)
	// uWSGI forgets a peer whose socket was full for the second time: no more is to be
	// on the way than fits into it.
	far.Run(t, "sh", "-e", "-c", "cd /proc/sys/net/ipv4; for f in tcp_rmem tcp_wmem; do echo 4096 65536 65536 >$f; done")
	uwsgi(far, "--uid", "nobody", "--gid", "nogroup", "--jailed", "--tuntap-device", "uwsgi0 "+socket,
		"--exec-as-root", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ifconfig uwsgi0 10.10.0.20 netmask 255.255.0.0 up; route add default gw 10.10.0.1",
		"--exec-as-root", "ping -c 1 -W 5 10.10.0.1", "--attach-daemon", agentPath(t))

	const pull = "curl -sS -m 20 --data 'yes %s | head -c 4M' http://%s:8000/sh | sha256sum"
	want := func(word string) string { return r.mustSh(blog, "yes "+word+" | head -c 4M | sha256sum") }
	meet := func() {
		t.Helper()
		nettest.Eventually(t, patience, "a ping to cross both gateways", func() bool {
			_, err := r.sh(blog, "ping -c 1 -W 1 10.10.0.20 && curl -sS -m 2 http://10.10.0.20:8000/")
			return err == nil
		})
		far.Run(t, "ping", "-c", "1", "-W", "5", blog.Addresses[0].String())
		if got := r.mustSh(blog, fmt.Sprintf(pull, "far", "10.10.0.20")); got != want("far") {
			t.Errorf("from the far vassal came %q", got)
		}
		if got := far.Run(t, "sh", "-c", fmt.Sprintf(pull, "blog", blog.Addresses[0])); got != want("blog") {
			t.Errorf("the far vassal got %q", got)
		}
	}
	meet()
	r.killRouter()
	meet()
}
