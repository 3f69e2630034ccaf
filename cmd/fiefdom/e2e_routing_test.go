package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

const (
	dualNetwork = nativeNetwork + "tuntap-router-address = fd09::1/64\n"

	// rootIni is a vassal that may do everything to its own network.
	rootIni = "[uwsgi]\nuid = root\ncap = net_admin,net_raw\ncommand = AGENT\n"
)

// fetch is a shell command that prints a page or fails within two seconds.
func fetch(url string) string { return "curl -sS -m 2 " + url }

// addressOf is a vassal's address of one family, told by its length in bits.
func addressOf(t *testing.T, s emperor.Status, bits int) netip.Addr {
	t.Helper()
	for _, a := range s.Addresses {
		if a.BitLen() == bits {
			return a
		}
	}
	t.Fatalf("%s has no address of %d bits: %v", s.Name, bits, s.Addresses)
	return netip.Addr{}
}

// listen answers on a port of a namespace with its name, until the test's end.
func listen(t *testing.T, ns *nettest.NS, address string) {
	t.Helper()
	ns.Do(t, func() {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.NotFoundHandler()}
		go func() { _ = server.Serve(l) }() // ends with the listener
		t.Cleanup(func() { server.Close() })
	})
}

func TestVassalsReachTheInternetUnderTheHostsAddress(t *testing.T) {
	t.Parallel()
	r := newRealm(t, dualNetwork, map[string]string{"blog": agentIni})
	r.inet(nettest.InetAddr4, nil)
	r.inet(nettest.InetAddr6, nil)
	s := r.await("blog", "has both addresses", func(s emperor.Status) bool { return len(s.Addresses) == 2 })
	r.reach("blog")
	if got := r.mustSh(s, fetch("http://198.51.100.2/")); got != nettest.HostAddr4.String()+"\n" {
		t.Errorf("by IPv4 the server sees %q", got)
	}
	if got := r.mustSh(s, fetch("http://[2001:db8:198::2]/")); got != nettest.HostAddr6.String()+"\n" {
		t.Errorf("by IPv6 the server sees %q", got)
	}
	r.mustSh(s, "ping -c 1 -W 2 198.51.100.2 && ping -c 1 -W 2 2001:db8:198::2")
	if _, err := r.get(addressOf(t, s, 128), "/"); err != nil {
		t.Errorf("the host does not reach the vassal by IPv6: %v", err)
	}
}

// What an isolated vassal starts towards others, private networks or the host
// is denied and counted; that it answers, and pings its router, is not.
func TestIsolatedVassalsReachNobodyButTheInternet(t *testing.T) {
	t.Parallel()
	r := newRealm(t, dualNetwork, map[string]string{"blog": agentIni, "shop": agentIni})
	r.inet(nettest.InetAddr4, nil)
	listen(t, r.Host, ":9999")
	blog, shop := r.reach("blog"), r.reach("shop")
	r.mustSh(blog, "ping -c 1 -W 2 10.9.0.1 && ping -c 1 -W 2 fd09::1")

	denied := []string{
		"http://10.9.0.1:9999/", "http://198.51.100.1:9999/", "http://[fd09::1]:9999/", "http://[2001:db8:198::1]:9999/",
		"http://169.254.169.254/", "http://192.168.1.1/", "http://10.8.0.1/",
	}
	for _, a := range shop.Addresses {
		denied = append(denied, "http://"+net.JoinHostPort(a.String(), "8000")+"/")
		if !r.answers(a) {
			t.Errorf("the host does not reach shop at %v, so this test shows nothing", a)
		}
	}
	before := r.ps("blog").Drops["isolate"]
	for _, url := range denied {
		if out, err := r.sh(blog, "curl -sS -m 0.4 "+url); err == nil || !strings.Contains(out, "timed out") {
			t.Errorf("%s: %v %q, want a time-out", url, err, out)
		}
	}
	if got := r.ps("blog").Drops["isolate"] - before; got < uint64(len(denied)) {
		t.Errorf("%d packets are counted as isolate, want %d or more", got, len(denied))
	}
	if out, err := r.sh(blog, "ping -c 1 -W 0.4 "+addressOf(t, shop, 32).String()); err == nil {
		t.Errorf("blog pings shop:\n%s", out)
	}
	if shop := r.ps("shop"); len(shop.Drops) != 0 {
		t.Errorf("shop has drops: %v", shop.Drops)
	}
	r.mustSh(blog, fetch("http://198.51.100.2/"))
}

func TestWithoutIsolationNeighboursMeet(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprintf("direct %v", direct), func(t *testing.T) {
			t.Parallel()
			ini := nativeNetwork + "tuntap-router-isolate = off\n"
			if !direct {
				ini += "tuntap-router-direct = off\n"
			}
			r := newRealm(t, ini, map[string]string{"blog": agentIni, "shop": agentIni})
			blog, shop := r.reach("blog"), r.reach("shop")
			url := "http://" + shop.Addresses[0].String() + ":8000/"
			if out, err := r.sh(blog, fetch(url)); err != nil {
				t.Fatalf("blog does not reach shop: %v %s", err, out)
			}
			// Only what goes through the kernel meets the operator's rules.
			r.Run(t, "iptables", "-I", "FORWARD", "-s", blog.Addresses[0].String(), "-d", shop.Addresses[0].String(), "-j", "DROP")
			defer r.Run(t, "iptables", "-D", "FORWARD", "1")
			_, err := r.sh(blog, "curl -sS -m 0.5 "+url)
			if passes := err == nil; passes != direct {
				t.Errorf("with a rule of the host against it, blog reaches shop: %v, want %v", passes, direct)
			}
		})
	}
}

// A vassal that may change its own addresses cannot have those of others.
func TestAddressThiefIsRefused(t *testing.T) {
	t.Parallel()
	r := newRealm(t, dualNetwork, map[string]string{
		"thief":  rootIni,
		"victim": "[uwsgi]\ntuntap-device-address = 10.9.0.7\ntuntap-device-address = fd09::7\ncommand = AGENT\n",
	})
	r.inet(nettest.InetAddr4, nil)
	r.inet(nettest.InetAddr6, nil)
	victim, thief := r.reach("victim"), r.reach("thief")
	r.mustSh(thief, fetch("http://198.51.100.2/"))
	r.mustSh(thief, "ip addr add 10.9.0.7/16 dev eth0 && ip addr add 10.9.77.77/16 dev eth0 && ip -6 addr add fd09::7/64 dev eth0 nodad")
	before := r.ps("thief").Drops["spoofed"]
	for _, command := range []string{
		"curl -sS -m 0.5 --interface 10.9.0.7 http://198.51.100.2/",
		"curl -sS -m 0.5 --interface 10.9.77.77 http://198.51.100.2/",
		"curl -sS -m 0.5 --interface fd09::7 http://[2001:db8:198::2]/",
		"ping -c 3 -i 0.1 -W 0.5 -I 10.9.0.7 10.9.0.1",
	} {
		if out, err := r.sh(thief, command); err == nil {
			t.Errorf("%s works:\n%s", command, out)
		}
	}
	if got := r.ps("thief").Drops["spoofed"] - before; got < 6 {
		t.Errorf("%d packets are counted as spoofed, want 6 or more", got)
	}
	now := r.ps("victim")
	if now.PID != victim.PID || len(now.Drops) != 0 || !r.answers(victim.Addresses[0]) {
		t.Errorf("the victim was disturbed: %+v", now)
	}
	if got := r.mustSh(victim, fetch("http://198.51.100.2/")); got != "198.51.100.1\n" {
		t.Errorf("the victim's way out: %q", got)
	}
	// Its own address works as before, and the thief too.
	r.mustSh(thief, "curl -sS -m 2 --interface "+addressOf(t, thief, 32).String()+" http://198.51.100.2/")
}

// A vassal that breaks its device gets a new jail; its neighbour notices nothing.
func TestBrokenDeviceIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"vandal": rootIni, "blog": agentIni})
	blog, vandal := r.reach("blog"), r.reach("vandal")
	r.mustSh(vandal, "(sleep 0.1; ip link del eth0) >/dev/null 2>&1 &") // later: the answer has no way back then
	r.await("vandal", "is back in a new jail", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != vandal.PID && r.answers(vandal.Addresses[0])
	})
	if now := r.ps("blog"); now.PID != blog.PID || !r.answers(blog.Addresses[0]) {
		t.Errorf("blog was disturbed: %+v", now)
	}
}

func TestDeviceRules(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"out": "[uwsgi]\ntuntap-device = eth0\ntuntap-device-address = auto\ntuntap-device-rule = out 0.0.0.0 198.51.100.0/24 deny\ncommand = AGENT\n",
		"in":  "[uwsgi]\ntuntap-device-address = 10.9.0.8\ntuntap-device-rule = in 10.9.0.1 0.0.0.0 deny\ncommand = AGENT\n",
	})
	r.inet(nettest.InetAddr4, nil)
	out := r.reach("out")
	if text, err := r.sh(out, "curl -sS -m 0.5 http://198.51.100.2/"); err == nil {
		t.Errorf("a denied way out is open: %s", text)
	}
	in := r.awaitState("in", emperor.Running)
	if r.answers(in.Addresses[0]) {
		t.Error("a denied way in is open")
	}
	for _, name := range []string{"out", "in"} {
		if drops := r.ps(name).Drops; drops["rule"] == 0 {
			t.Errorf("the drops of %q are %v, want some by rule", name, drops)
		}
	}
}

// The chains judge by protocol and port too, and a reject is answered at once.
func TestFirewallChains(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+`tuntap-router-firewall-out = reject any 198.51.100.2 tcp 81
tuntap-router-firewall-out = allow any 10.9.0.1 tcp 9999
tuntap-router-firewall-in = deny 198.51.100.2 any icmp
`, map[string]string{"blog": agentIni})
	r.inet(nettest.InetAddr4, nil)
	listen(t, r.Inet, "198.51.100.2:81")
	listen(t, r.Host, "10.9.0.1:9999")
	s := r.reach("blog")
	r.mustSh(s, fetch("http://198.51.100.2/"))
	r.mustSh(s, fetch("http://10.9.0.1:9999/")) // allowed by a rule before isolation ends the chain
	if out, err := r.sh(s, fetch("http://198.51.100.2:81/")); err == nil || strings.Contains(out, "timed out") {
		t.Errorf("the rejected port: %v %q, want a refusal at once", err, out)
	}
	if out, err := r.sh(s, "ping -c 1 -W 0.5 198.51.100.2"); err == nil {
		t.Errorf("the answer to a ping came through chain in:\n%s", out)
	}
}

// The host's own drop policy does not stop the pool, and the way out is not a
// way in: from the internet nobody reaches a vassal.
func TestInternetDoesNotReachIn(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "iptables", "-P", "FORWARD", "DROP")
	r.drop("blog", agentIni)
	r.start()
	r.inet(nettest.InetAddr4, nil)
	s := r.reach("blog")
	r.mustSh(s, fetch("http://198.51.100.2/"))
	r.Inet.Run(t, "ip", "route", "add", "10.9.0.0/16", "via", "198.51.100.1")
	resp, err := clientIn(r.Inet).Get("http://" + s.Addresses[0].String() + ":8000/")
	if err == nil {
		resp.Body.Close()
		t.Error("the internet reaches the vassal")
	}
}
