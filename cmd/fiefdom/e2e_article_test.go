package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// What is built by hand in articles on how to create a virtual network like
// Docker's, step by step: a namespace, a bridge with 10.100.0.1/24, a pair of
// devices, addresses, a default route, forwarding and NAT. Here one ini says it, and
// the reader's own commands find each step done.
func TestArticleOnAVirtualNetworkLikeDockers(t *testing.T) {
	t.Parallel()
	r := newRealm(t, noNetwork, map[string]string{
		"app": "[uwsgi]\nnetwork = bridge:br0 10.100.0.1/24\ntuntap-device-address = 10.100.0.2\npublish = 8000\ncap = net_raw\ncommand = AGENT\n",
	})
	r.inet(nettest.InetAddr4, nil)
	app := r.reach("app")
	inside := func(command string) string {
		t.Helper()
		return r.Run(t, "nsenter", "-t", fmt.Sprint(app.PID), "-n", "sh", "-c", command)
	}
	steps := []struct {
		step, command string
		inside        bool
		want          []string
	}{
		{"a network namespace of its own", "ip -o link", true, []string{"lo: <LOOPBACK,UP", "eth0@"}},
		{"a bridge", "ip -d -o link show type bridge", false, []string{"br0: <BROADCAST,MULTICAST,UP,LOWER_UP>"}},
		{"the bridge's address", "ip -o -4 address show dev br0", false, []string{"10.100.0.1/24"}},
		{"the host's end in the bridge", "ip -o link show master br0", false, []string{"emp-", "state UP"}},
		{"whose it is", "ip link show master br0", false, []string{"alias fiefdom emperor vassal app eth0"}},
		{"the namespace's address", "ip -o -4 address show dev eth0", true, []string{"10.100.0.2/24"}},
		{"the default route", "ip route", true, []string{"default via 10.100.0.1 dev eth0", "10.100.0.0/24 dev eth0"}},
		{"loopback", "ping -c 1 -W 2 127.0.0.1", true, []string{" 0% packet loss"}},
		{"ping from the host", "ping -c 1 -W 2 10.100.0.2", false, []string{" 0% packet loss"}},
		{"ping of the bridge", "ping -c 1 -W 2 10.100.0.1", true, []string{" 0% packet loss"}},
		{"a service of the vassal's", "curl -sS -m 5 -o /dev/null -w '%{http_code}' http://10.100.0.2:8000/", false, []string{"200"}},
		{"forwarding", "cat /proc/sys/net/ipv4/conf/br0/forwarding", false, []string{"1"}},
		{"NAT", "iptables -t nat -S", false, []string{"-s 10.100.0.0/24 ! -d 10.100.0.0/24 -o eth0 -j MASQUERADE"}},
		{"forwarded by the firewall", "iptables -S", false, []string{"-s 10.100.0.0/24 -i br0 -o eth0 -j ACCEPT"}},
		{"ping of the internet", "ping -c 1 -W 2 198.51.100.2", true, []string{" 0% packet loss"}},
		{"the internet sees the host", "curl -sS -m 5 http://198.51.100.2/", true, []string{"198.51.100.1"}},
		{"the neighbours", "ip neigh show dev br0", false, []string{"10.100.0.2 lladdr"}},
		{"the bridge's table of addresses", "bridge fdb show br br0", false, []string{"master br0"}},
	}
	for _, s := range steps {
		run := func(command string) string { return r.Run(t, "sh", "-c", command) }
		if s.inside {
			run = inside
		}
		out := run(s.command)
		for _, want := range s.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %s: no %q in\n%s", s.step, s.command, want, out)
			}
		}
	}
	// Port 8000 of the host, on 127.0.0.1 and from outside.
	r.Run(t, "curl", "-sS", "-m", "5", "http://127.0.0.1:8000/")
	r.Run(t, "curl", "-sS", "-m", "5", "http://198.51.100.1:8000/")
	r.Inet.Run(t, "curl", "-sS", "-m", "5", "http://198.51.100.1:8000/")
	inside("curl -sS -m 5 http://198.51.100.1:8000/") // and from itself
	inside("curl -sS -m 5 http://10.100.0.1:8000/")
	if out := r.Run(t, "iptables", "-t", "nat", "-S"); !strings.Contains(out, "--dport 8000 -j DNAT --to-destination 10.100.0.2") {
		t.Errorf("the article's DNAT is not there:\n%s", out)
	}

	// A policy of DROP, as Docker sets it, stops nothing of this.
	r.Run(t, "iptables", "-P", "FORWARD", "DROP")
	inside("curl -sS -m 5 http://198.51.100.2/")
	r.Run(t, "iptables", "-P", "FORWARD", "ACCEPT")
	r.stop(syscall.SIGTERM) // and each step is undone
}

// The sysctls of a jail's network are an exact list: those of a new namespace, with
// what we set, for a device of a router and of a bridge.
func TestSysctlsOfAJail(t *testing.T) {
	t.Parallel()
	const six = "\ntuntap-device-address = fd10::7\n"
	r := newRealm(t, nativeNetwork+"bridge = br0 10.100.0.1/24 fd10::1/64\n", map[string]string{
		"tun":    agentIni,
		"bridge": "[uwsgi]\nnetwork = bridge:br0\ntuntap-device-address = 10.100.0.7\ncommand = AGENT\n",
		"both":   "[uwsgi]\nnetwork = bridge:br0" + six + "tuntap-device-address = 10.100.0.8\ncommand = AGENT\n",
	})
	list := "sysctl -a 2>/dev/null | grep -E '^net[.](ipv4|ipv6)[.]' | grep -vE '[.](lo|eth0|all[.]mc_forwarding)[.]|stable_secret|_mem |tcp_rmem|tcp_wmem' | sort"
	device := "sysctl -a 2>/dev/null | grep -E '^net[.]ipv[46][.]conf[.]eth0[.](accept_ra|accept_redirects|accept_dad|addr_gen_mode|disable_ipv6|router_solicitations|forwarding|rp_filter|proxy_arp|route_localnet|accept_source_route|force_forwarding|proxy_ndp) ' | sort"
	// What a new namespace has depends on the host's.
	r.Run(t, "sh", "-c", "cd /proc/sys/net/ipv4; echo 1 >ip_forward; echo 1 >conf/all/rp_filter; echo 1 >conf/default/accept_redirects")
	fresh := r.Run(t, "unshare", "-n", "sh", "-c", list)
	want := map[string]bool{}
	for _, line := range []string{
		"net.ipv4.ip_forward = 0", "net.ipv4.conf.all.forwarding = 0", "net.ipv4.conf.default.forwarding = 0",
		"net.ipv4.ip_unprivileged_port_start = 0", "net.ipv4.ping_group_range = 0\t2147483647",
		"net.ipv4.conf.all.accept_redirects = 0", "net.ipv4.conf.default.accept_redirects = 0",
		"net.ipv4.conf.all.accept_source_route = 0", "net.ipv4.conf.all.rp_filter = 2", "net.ipv6.conf.all.forwarding = 0",
	} {
		want[line] = true
	}
	common4 := "net.ipv4.conf.eth0.accept_redirects = 0\nnet.ipv4.conf.eth0.accept_source_route = 0\nnet.ipv4.conf.eth0.forwarding = 0\nnet.ipv4.conf.eth0.proxy_arp = 0\nnet.ipv4.conf.eth0.route_localnet = 0\n"
	for name, s := range map[string]string{"tun": "1", "bridge": "1", "both": "0"} {
		r.stopThenStart(name)
		pid := r.reach(name).PID
		now := r.Run(t, "nsenter", "-t", fmt.Sprint(pid), "-n", "sh", "-c", list)
		for line := range strings.Lines(nettest.Diff(fresh, now)) {
			line = strings.TrimSpace(line)
			if text, ok := strings.CutPrefix(line, "+ "); ok && !want[text] {
				t.Errorf("%s: %s", name, line)
			}
		}
		for text := range want {
			if !strings.Contains(now, text+"\n") {
				t.Errorf("%s has no %s", name, text)
			}
		}
		out := r.Run(t, "nsenter", "-t", fmt.Sprint(pid), "-n", "sh", "-c", device)
		if !strings.Contains(out, "conf.eth0.disable_ipv6 = "+s) {
			t.Errorf("%s: disable_ipv6 is not %s:\n%s", name, s, out)
		}
		if s == "0" {
			for _, text := range []string{"accept_dad = 0", "accept_ra = 0", "accept_redirects = 0", "addr_gen_mode = 1", "router_solicitations = 0", "forwarding = 0", "proxy_ndp = 0"} {
				if !strings.Contains(out, "net.ipv6.conf.eth0."+text) {
					t.Errorf("%s: IPv6 has no %s:\n%s", name, text, out)
				}
			}
		}
		for line := range strings.Lines(common4) {
			if !strings.Contains(out, line) {
				t.Errorf("%s has no %s in\n%s", name, strings.TrimSpace(line), out)
			}
		}
	}
	r.stop(syscall.SIGTERM)
}

// stopThenStart gives a vassal a new jail.
func (r *realm) stopThenStart(vassal string) {
	r.t.Helper()
	r.mustRun("stop", vassal)
	r.mustRun("start", vassal)
}
