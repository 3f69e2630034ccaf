package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// backNetwork is an emperor's ini with two networks: one with NAT, and one that
// leads nowhere.
const backNetwork = nativeNetwork + `tuntap-router = back0 /run/fiefdom/emperor/back0.sock
tuntap-router-address = 10.10.0.1/24
tuntap-router-address = fd10::1/64
tuntap-router-isolate = off
tuntap-router-attach = asked
tuntap-router-nat = off
`

// A vassal names its networks: none, the host's, one, or several.
func TestVassalsNameTheirNetworks(t *testing.T) {
	t.Parallel()
	r := newRealm(t, backNetwork, map[string]string{
		"web":   "[uwsgi]\nnetwork = fief0 back0\ncommand = AGENT\n",
		"db":    "[uwsgi]\nnetwork = back0\ntuntap-device-address = 10.10.0.7 auto\ncommand = AGENT\n",
		"blog":  agentIni,
		"alone": "[uwsgi]\nnetwork = none\ncommand = AGENT\n",
		"proxy": "[uwsgi]\nnetwork = host\ncommand = AGENT 8800\n",
		"lost":  "[uwsgi]\nnetwork = fief1\ncommand = AGENT\n",
	})
	r.inet(nettest.InetAddr4, nil)
	web, db := r.reach("web"), r.reach("db")

	out := r.mustSh(web, "ip -o -4 address; ip -4 route; ip -6 route")
	for _, want := range []string{"eth0    inet 10.9.", "eth1    inet 10.10.0.", "default via 10.9.0.1 dev eth0", "default via fd10::1 dev eth1"} {
		if !strings.Contains(out, want) {
			t.Errorf("web has no %q:\n%s", want, out)
		}
	}
	r.mustSh(web, fetch("http://198.51.100.2/"))
	r.mustSh(web, fetch("http://10.10.0.7:8000/"))
	if out, err := r.sh(db, fetch("http://198.51.100.2/")); err == nil {
		t.Errorf("a network without NAT leads to the internet:\n%s", out)
	}

	// The host answers by either device, and so does who asks from elsewhere by the second.
	for _, a := range web.Addresses {
		if !r.answers(a) {
			t.Errorf("web does not answer the host at %s", a)
		}
	}
	r.Inet.Run(t, "ip", "route", "add", "10.10.0.0/24", "via", "198.51.100.1")
	r.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	second := second4(t, web)
	r.Inet.Run(t, "curl", "-sS", "-m", "5", "http://"+second.String()+":8000/")
	r.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")

	alone := r.awaitState("alone", emperor.Running)
	if len(alone.Addresses) > 0 {
		t.Errorf("alone has addresses %v", alone.Addresses)
	}
	devices := r.Run(t, "nsenter", "-t", fmt.Sprint(alone.PID), "-n", "ip", "-o", "link")
	if strings.Count(devices, "\n") != 1 || !strings.Contains(devices, "lo: <LOOPBACK,UP") {
		t.Errorf("alone has devices:\n%s", devices)
	}
	r.Run(t, "nsenter", "-t", fmt.Sprint(alone.PID), "-n", "curl", "-sS", "-m", "5", "http://127.0.0.1:8000/")

	proxy := r.awaitState("proxy", emperor.Running)
	r.Run(t, "curl", "-sS", "-m", "5", "http://127.0.0.1:8800/")
	if proxy.UID == 0 {
		t.Error("a vassal of the host's network that says no uid runs as root")
	}
	lost := r.awaitState("lost", emperor.Invalid)
	if !strings.Contains(lost.Error, "no network fief1") || !strings.Contains(lost.Error, "fief0 back0") {
		t.Errorf("lost: %s", lost.Error)
	}

	// A jail is another one as soon as its networks are others.
	r.drop("web", "[uwsgi]\nnetwork = back0\ncommand = AGENT\n")
	r.await("web", "has left fief0", func(s emperor.Status) bool {
		return s.State == emperor.Running && !slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool { return strings.HasPrefix(a.String(), "10.9.") })
	})
	r.stop(syscall.SIGTERM)
}

// second4 is the vassal's address of back0.
func second4(t *testing.T, s emperor.Status) netip.Addr {
	t.Helper()
	for _, a := range s.Addresses {
		if strings.HasPrefix(a.String(), "10.10.") {
			return a
		}
	}
	t.Fatalf("%s has no address in back0: %v", s.Name, s.Addresses)
	return netip.Addr{}
}
