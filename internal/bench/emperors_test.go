package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// patience is for what takes seconds: a thousand jails on a small machine.
const patience = 2 * time.Minute

// ours is an emperor of ours in a world of its own.
type ours struct {
	*nettest.World
	api *emperor.Client
}

// settings are in what the emperors of a run differ.
type settings struct {
	more  string // a line of the emperor's ini
	rules int    // that match nothing
}

const oursIni = `[uwsgi]
instance = bench
emperor = /run/t/vassals
tuntap-router = fief0 /run/fiefdom/bench/fief0.sock
tuntap-router-address = 10.9.0.1/16
tuntap-router-address = fd09::1/64
tuntap-router-nat = auto
tuntap-router-attach = all
tuntap-router-isolate = off
`

// lay writes the files of an emperor of ours, without any vassal.
func lay(t *testing.T, s settings) *ours {
	t.Helper()
	o := &ours{World: nettest.NewWorld(t)}
	ini := oursIni + s.more + "\n" + lines(s.rules, func(i int) string {
		return fmt.Sprintf("tuntap-router-firewall-out = deny 172.16.%d.%d 10.9.0.0/16 udp %d", i/250, i%250, 1+i)
	})
	write(t, o.World, "/run/t/emperor.ini", ini)
	if err := os.MkdirAll(o.Path("/run/t/vassals"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.api = emperor.NewClient(o.Path("/run/fiefdom/bench"))
	return o
}

// start starts the emperor and waits until it answers.
func (o *ours) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(*program, "run", "/run/t/emperor.ini")
	cmd.Stdout = logOf(t)
	cmd.Stderr = cmd.Stdout
	o.Start(t, cmd)
	nettest.Eventually(t, patience, "our emperor answers", func() bool {
		_, err := o.api.List(t.Context())
		return err == nil
	})
}

// drop adds vassals that do nothing.
func (o *ours) drop(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		write(t, o.World, fmt.Sprintf("/run/t/vassals/idle%d.ini", i), "[uwsgi]\ncommand = sleep infinity\n")
	}
}

// await waits until so many vassals run.
func (o *ours) await(t *testing.T, n int) {
	t.Helper()
	nettest.Eventually(t, patience, fmt.Sprintf("%d vassals of ours run", n), func() bool {
		all, err := o.api.List(t.Context())
		running := 0
		for _, s := range all {
			if s.State == emperor.Running && len(s.Addresses) > 0 {
				running++
			}
		}
		return err == nil && running == n
	})
}

// pair adds the two vassals that are measured.
func (o *ours) pair(t *testing.T, name string) *system {
	t.Helper()
	var jails []*nettest.NS
	for i, addrs := range [][2]string{{first[0].String(), first[1].String()}, {second[0].String(), second[1].String()}} {
		vassal := "vassal" + strconv.Itoa(i)
		write(t, o.World, "/run/t/vassals/"+vassal+".ini",
			"[uwsgi]\ncommand = sleep infinity\ntuntap-device-address = "+addrs[0]+"\ntuntap-device-address = "+addrs[1]+"\n")
		var s emperor.Status
		nettest.Eventually(t, patience, vassal+" of ours runs", func() (is bool) {
			var err error
			s, err = o.api.Get(t.Context(), vassal)
			return err == nil && s.State == emperor.Running && len(s.Addresses) == 2
		})
		jails = append(jails, inside(t, o.World, s.PID))
	}
	return in(o.World, name, jails[0], jails[1])
}

// rss is the router's resident memory, in KB.
func (o *ours) rss(t *testing.T) float64 {
	t.Helper()
	pid, err := os.ReadFile(o.Path("/run/fiefdom/bench/router"))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(o.Path("/proc/" + strings.Fields(string(pid))[0] + "/status"))
	if err != nil {
		t.Fatal(err)
	}
	var kb float64
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatalf("read the router's memory: %v", err)
	}
	return kb
}

// uwsgi is a real uWSGI emperor in a world of its own.
type uwsgi struct{ *nettest.World }

const (
	uwsgiPlugins = "/usr/lib/uwsgi/plugins"

	// Its router carries IPv4 alone.
	uwsgiVassal = `[uwsgi]
plugins-dir = ` + uwsgiPlugins + `
plugin = tuntap
jailed = true
tuntap-device = uwsgi0 /run/t/tuntap.socket
exec-as-root = echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
exec-as-root = ifconfig lo up
exec-as-root = ifconfig uwsgi0 %v netmask 255.255.0.0 up
exec-as-root = route add default gw 10.9.0.1
exec-as-root = ping -c 1 10.9.0.1
uid = nobody
gid = nogroup
master = true
socket = 127.0.0.1:3031
`
	uwsgiEmperor = `[uwsgi]
plugins-dir = ` + uwsgiPlugins + `
plugin = tuntap
master = true
tuntap-router = emperor0 /run/t/tuntap.socket /run/t/stats.socket
exec-as-root = ifconfig emperor0 10.9.0.1 netmask 255.255.0.0 up
exec-as-root = iptables -t nat -A POSTROUTING -s 10.9.0.0/16 -o eth0 -j MASQUERADE
exec-as-root = echo 1 >/proc/sys/net/ipv4/ip_forward
emperor-use-clone = net
emperor = /run/t/vassals
`
)

// layUWSGI writes the files of a real uWSGI emperor.
func layUWSGI(t *testing.T) *uwsgi {
	t.Helper()
	u := &uwsgi{nettest.NewWorld(t)}
	write(t, u.World, "/run/t/emperor.ini", uwsgiEmperor)
	return u
}

func (u *uwsgi) drop(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		write(t, u.World, fmt.Sprintf("/run/t/vassals/idle%d.ini", i), fmt.Sprintf(uwsgiVassal, poolAddr(i)))
	}
}

func (u *uwsgi) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("uwsgi", "/run/t/emperor.ini")
	cmd.Stdout = logOf(t)
	cmd.Stderr = cmd.Stdout
	u.Start(t, cmd)
}

// await waits until the router knows so many vassals.
func (u *uwsgi) await(t *testing.T, n int) {
	t.Helper()
	nettest.Eventually(t, patience, fmt.Sprintf("%d vassals of uWSGI are registered", n), func() bool { return u.registered() == n })
}

// registered is how many vassals the router knows.
func (u *uwsgi) registered() (n int) {
	c, err := net.Dial("unix", u.Path("/run/t/stats.socket"))
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	text, _ := io.ReadAll(c)
	var stats struct{ Peers []struct{ Addr string } }
	if json.Unmarshal(text, &stats) != nil {
		return 0
	}
	for _, p := range stats.Peers {
		if p.Addr != "0.0.0.0" && p.Addr != "" {
			n++
		}
	}
	return n
}

// pair starts it with the two vassals that are measured.
func (u *uwsgi) pair(t *testing.T) *system {
	t.Helper()
	for i, addr := range [2]fmt.Stringer{first[0], second[0]} {
		text := fmt.Sprintf(uwsgiVassal, addr) + fmt.Sprintf("exec-as-root = echo $PPID >/run/t/pid%d\n", i)
		write(t, u.World, fmt.Sprintf("/run/t/vassals/vassal%d.ini", i), text)
	}
	u.start(t)
	s := in(u.World, "uwsgi", nil, nil)
	s.six = false
	s.ready = func(t *testing.T) error { return u.find(t, s) }
	t.Cleanup(func() { closeJails(s) })
	return s
}

// find sees to it that the jails of a system are those of its vassals: one that
// was started again has another jail.
func (u *uwsgi) find(t *testing.T, s *system) error {
	whole := func(p place) (is bool) {
		if p.ns == nil {
			return false
		}
		p.ns.Do(t, func() {
			_, err := netlink.LinkByName("uwsgi0")
			is = err == nil
		})
		return is
	}
	if whole(s.one) && whole(s.two) {
		return nil
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		closeJails(s)
		if u.registered() != 2 {
			continue
		}
		for i, p := range []*place{&s.one, &s.two} {
			var pid int
			text, _ := os.ReadFile(u.Path(fmt.Sprintf("/run/t/pid%d", i)))
			_, _ = fmt.Sscan(string(text), &pid)
			if handle, err := vnetns.GetFromPath(u.Path(fmt.Sprintf("/proc/%d/ns/net", pid))); err == nil {
				p.ns = &nettest.NS{Handle: handle}
			}
		}
		if whole(s.one) && whole(s.two) {
			return nil
		}
	}
	return errors.New("uWSGI's vassals do not come back")
}

func closeJails(s *system) {
	for _, p := range []*place{&s.one, &s.two} {
		if p.ns != nil {
			p.ns.Handle.Close()
			p.ns = nil
		}
	}
}
