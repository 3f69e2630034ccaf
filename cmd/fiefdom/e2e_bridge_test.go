package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

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
writable = /run/t/s
command = AGENT
`
)

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
	inBothWorlds(t, func(t *testing.T, w *nettest.World) {
		const told = "tuntap-use-credentials = true\n"
		r := newBridgedRealm(t, w, realUWSGI+told, map[string]string{
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
		r.die()
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
