package main

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"fiefdom/internal/nettest"
)

// The emperor switches forwarding on, and the host forwards nothing that it did
// not forward before: neither from the internet to another network of the host
// nor back, neither while the emperor runs nor afterwards.
func TestHostForwardsNothingElse(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", dualNetwork)
	lan := nettest.NewNS(t)
	nettest.Veth(t,
		nettest.End{NS: r.Host, Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8:203::1/64")}},
		nettest.End{NS: lan, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24"), netip.MustParsePrefix("2001:db8:203::2/64")}})
	lan.Route(t, netip.MustParseAddr("203.0.113.1"))
	lan.Route(t, netip.MustParseAddr("2001:db8:203::1"))
	r.Inet.Run(t, "ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.1")
	r.Inet.Run(t, "ip", "route", "add", "2001:db8:203::/64", "via", "2001:db8:198::1")
	const ping = " -c 2 -i 0.1 -W 0.5 "
	blocked := func(when string) {
		t.Helper()
		for _, to := range []string{"198.51.100.2", "2001:db8:198::2"} {
			lan.Run(t, "sh", "-c", "! ping"+ping+to+" || { echo forwarded "+when+"; exit 1; }")
		}
		for _, to := range []string{"203.0.113.2", "2001:db8:203::2"} {
			r.Inet.Run(t, "sh", "-c", "! ping"+ping+to+" || { echo forwarded "+when+"; exit 1; }")
		}
	}
	blocked("before")
	r.drop("blog", agentIni)
	r.start()
	r.inet(nettest.InetAddr4, nil)
	s := r.reach("blog")
	r.mustSh(s, fetch("http://198.51.100.2/"))
	blocked("while the emperor runs")
	r.stop(syscall.SIGTERM)
	blocked("after the emperor")
	if out, _ := r.run("doctor"); !strings.Contains(out, "forwarding") {
		t.Errorf("doctor does not name the forwarding that is left on:\n%s", out)
	}
	// The setup can forward, so that what is blocked above says something.
	r.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	lan.Run(t, "ping", "-c", "1", "-W", "2", "198.51.100.2")
}

// Names and addresses that the host has already are refused, with a way out,
// before anything is made.
func TestClashesWithTheHostAreRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, setup string
		want        []string
	}{
		{"device of that name", "ip link add fief0 type veth peer name fief0peer", []string{"emperor.ini:3", `"fief0"`, "choose another name, such as fief1"}},
		{"a network in the pool", "ip addr add 10.9.5.1/24 dev eth0", []string{"emperor.ini:3", "10.9.0.0/16", "10.9.5.0/24"}},
		{"a route over the pool", "ip route add 10.0.0.0/8 via 198.51.100.2", []string{"emperor.ini:3", "10.9.0.0/16", "10.0.0.0/8"}},
		{"a file at the socket's place", "mkdir -p /run/s && touch /run/s/sock", []string{"emperor.ini:3", "/run/s/sock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ini := nativeNetwork
			if strings.Contains(tt.setup, "/run/s") {
				ini = strings.Replace(ini, "/run/fiefdom/emperor/fief0.sock", "/run/s/sock", 1)
			}
			r := layRealm(t, nettest.NewWorld(t), "emperor", ini)
			r.Run(t, "sh", "-c", tt.setup)
			r.drop("blog", agentIni)
			r.before = r.Snapshot(t)
			out, code := r.run("run", "/run/t/emperor.ini")
			if code != exitFailed {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("the message has no %q:\n%s", want, out)
				}
			}
			r.checkNothingLeft()
		})
	}
}
