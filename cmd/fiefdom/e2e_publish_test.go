package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// publishIni is an agent that publishes; its UDP side answers, too.
func publishIni(lines ...string) string {
	text := "[uwsgi]\ncommand = AGENT 8000 udp\n"
	for _, line := range lines {
		text += "publish = " + line + "\n"
	}
	return text
}

// peerBy asks a published port of an agent, from a namespace, and returns which
// address the agent was asked from; an error if nobody answers.
func peerBy(ns *nettest.NS, network, address string) (string, error) {
	if network == "tcp" {
		resp, err := clientIn(ns).Get("http://" + address + "/peer")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s", resp.Status)
		}
		return string(b), err
	}
	var c net.Conn
	err := netns.Do(ns.Handle, func() (err error) {
		c, err = net.Dial(network, address)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, 64)
	for range 4 {
		if _, err = c.Write([]byte("?")); err != nil {
			return "", err
		}
		var n int
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err = c.Read(b); err == nil {
			return string(b[:n]), nil
		}
	}
	return "", err
}

// open says whether a port is published at the host's own address, and its app
// sees who asks.
func (r *realm) open(port string) bool {
	got, err := peerBy(r.Inet, "tcp", "198.51.100.1:"+port)
	return err == nil && got == "198.51.100.2"
}

// peerWithin is peerBy from a vassal's jail, by TCP.
func (r *realm) peerWithin(s emperor.Status, address string) (string, error) {
	out, err := r.sh(s, fetch("http://"+address+"/peer"))
	return strings.TrimSpace(out), err
}

// A published port is reached from another machine, from the host, from another
// vassal and from the vassal itself, by TCP and UDP, IPv4 and IPv6; the app sees
// who asks. What is published at one address is there alone, and what is
// published at the loopback is the host's.
func TestPublishedFromEverywhere(t *testing.T) {
	t.Parallel()
	r := newRealm(t, dualNetwork, map[string]string{
		"blog": publishIni("8080:8000", "8080:8000/udp", "127.0.0.1:8081:8000", "[::1]:8081:8000", "127.0.0.1:8081:8000/udp", "198.51.100.1:8082:8000",
			"9000-9002:7998-8000", "8083:8000 from 203.0.113.0/24"),
		"shop": agentIni,
	})
	blog, shop := r.reach("blog"), r.reach("shop")
	const inet4, inet6 = "198.51.100.2", "2001:db8:198::2"
	for _, c := range []struct {
		name, network, address string
		from                   *nettest.NS
		want                   string // empty: nobody answers
	}{
		{"another machine", "tcp", "198.51.100.1:8080", r.Inet, inet4},
		{"another machine, UDP", "udp", "198.51.100.1:8080", r.Inet, inet4},
		{"another machine, IPv6", "tcp", "[2001:db8:198::1]:8080", r.Inet, inet6},
		{"another machine, IPv6 and UDP", "udp", "[2001:db8:198::1]:8080", r.Inet, inet6},
		{"another machine, end of a range", "tcp", "198.51.100.1:9002", r.Inet, inet4},
		{"another machine, one address", "tcp", "198.51.100.1:8082", r.Inet, inet4},
		{"another machine, loopback's port", "tcp", "198.51.100.1:8081", r.Inet, ""},
		{"another machine, not among from", "tcp", "198.51.100.1:8083", r.Inet, ""},
		{"the host", "tcp", "198.51.100.1:8080", r.Host, "198.51.100.1"},
		{"the host, UDP", "udp", "198.51.100.1:8080", r.Host, "198.51.100.1"},
		{"the host, IPv6", "tcp", "[2001:db8:198::1]:8080", r.Host, "2001:db8:198::1"},
		{"the host by the router's address", "tcp", "10.9.0.1:8080", r.Host, "10.9.0.1"},
		{"the host by 127.0.0.1", "tcp", "127.0.0.1:8080", r.Host, "10.9.0.1"},
		{"the host by 127.0.0.1, UDP", "udp", "127.0.0.1:8080", r.Host, "10.9.0.1"},
		{"the host by ::1", "tcp", "[::1]:8080", r.Host, "fd09::1"},
		{"the host by ::1, UDP", "udp", "[::1]:8080", r.Host, "fd09::1"},
		{"the host, loopback's port", "tcp", "127.0.0.1:8081", r.Host, "10.9.0.1"},
		{"the host, loopback's port of IPv6", "tcp", "[::1]:8081", r.Host, "fd09::1"},
		{"the host, loopback's port of UDP", "udp", "127.0.0.1:8081", r.Host, "10.9.0.1"},
		{"the host, loopback's port by another address", "tcp", "198.51.100.1:8081", r.Host, ""},
		{"the host, one address by another", "tcp", "127.0.0.1:8082", r.Host, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := peerBy(c.from, c.network, c.address)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name    string
		from    emperor.Status
		address string
		want    string
	}{
		// In one network the answer would not come back by the host: it is the router that asks.
		{"another vassal", shop, "198.51.100.1:8080", "10.9.0.1"},
		{"another vassal, IPv6", shop, "[2001:db8:198::1]:8080", "fd09::1"},
		{"another vassal by the router's address", shop, "10.9.0.1:8080", "10.9.0.1"},
		{"another vassal, loopback's port", shop, "198.51.100.1:8081", ""},
		{"another vassal, not published", shop, blog.Addresses[0].String() + ":8000", ""},
		{"itself", blog, "198.51.100.1:8080", "10.9.0.1"},
		{"itself, IPv6", blog, "[2001:db8:198::1]:8080", "fd09::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.peerWithin(c.from, c.address)
			if c.want == "" && err == nil || c.want != "" && got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	nobodysLoopback(t, r)
}

// nobodysLoopback: a neighbour that sends to 127.0.0.1 over the wire reaches
// nothing, published or not; nor does a vassal with a route of its own.
func nobodysLoopback(t *testing.T, r *realm) {
	t.Helper()
	lan := nettest.NewNS(t)
	nettest.Veth(t,
		nettest.End{NS: r.Host, Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
		nettest.End{NS: lan, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24")}})
	lan.Run(t, "sh", "-c", `
		ip route flush table local dev lo
		echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
		ip route add 127.0.0.0/8 via 203.0.113.1`)
	for _, port := range []string{"8080", "8081", "22"} {
		if got, err := peerBy(lan, "tcp", "127.0.0.1:"+port); err == nil {
			t.Errorf("127.0.0.1:%s answers a neighbour on the wire: %s", port, got)
		}
	}
	// It could have: it reaches the host, and sends what it should.
	if got, err := peerBy(lan, "tcp", "203.0.113.1:8080"); got != "203.0.113.2" {
		t.Errorf("the neighbour does not reach the host: %q, %v", got, err)
	}
	if got, err := peerBy(lan, "tcp", "203.0.113.1:8083"); got != "203.0.113.2" {
		t.Errorf("the neighbour is among from, and not let in: %q, %v", got, err)
	}
}

// The host's own firewall decides about other machines; who asks is told.
func TestPublishedButClosed(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "iptables", "-P", "FORWARD", "DROP")
	r.drop("blog", publishIni("8080:8000"))
	r.start()
	r.reach("blog")
	if got, err := peerBy(r.Inet, "tcp", "198.51.100.1:8080"); err == nil {
		t.Errorf("our rules open what the host's policy closes: %q", got)
	}
	if got, err := peerBy(r.Host, "tcp", "127.0.0.1:8080"); err != nil {
		t.Errorf("the host itself: %q, %v", got, err)
	}
	want := "published 0.0.0.0:8080/tcp: closed for other machines by the policy of FORWARD (-P FORWARD DROP); fiefdom doctor shows how to open it"
	if out := r.mustRun("status", "blog"); !strings.Contains(out, want) {
		t.Errorf("status:\n%s", out)
	}
	nettest.Eventually(t, patience, "the log tells", func() bool {
		text, err := os.ReadFile(r.log)
		return err == nil && strings.Count(string(text), "closes published ports for other machines") == 1
	})
	out, _ := r.run("doctor", "--json")
	f := found(t, out)["published"]
	if f.Level != levelWarn || !strings.Contains(f.Detail, "0.0.0.0:8080/tcp: closed for other machines by the policy of FORWARD") {
		t.Fatalf("doctor: %+v", f)
	}
	for line := range strings.Lines(f.Fix) {
		r.Run(t, "sh", "-c", line)
	}
	if got, err := peerBy(r.Inet, "tcp", "198.51.100.1:8080"); got != "198.51.100.2" {
		t.Errorf("with the lines of doctor: %q, %v", got, err)
	}
	r.Run(t, "sh", "-c", strings.ReplaceAll(f.Fix, " -I ", " -D "))
	r.Run(t, "iptables", "-P", "FORWARD", "ACCEPT")
}

// Ports that somebody has are not published; the error says who has them, and
// they are published when they are free.
func TestTakenPortsAreNamed(t *testing.T) {
	t.Parallel()
	w := nettest.NewWorld(t)
	r := layRealm(t, w, "emperor", nativeNetwork)
	listener := exec.Command("agent", "8080")
	w.Start(t, listener)
	nettest.Eventually(t, patience, "a program listens", func() bool {
		_, err := peerBy(w.Host, "tcp", "127.0.0.1:8080")
		return err == nil
	})
	r.drop("blog", publishIni("8080:8000"))
	r.drop("gate", publishIni("9000:8000", "9000:8000/udp"))
	// It may be for another host: check only warns.
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitOK || strings.Count(out, "\n") != 1 ||
		!strings.Contains(out, "blog.ini:3: port 8080/tcp is taken on this host now by agent (pid ") {
		t.Errorf("check: exit code %d\n%s", code, out)
	}
	r.start()
	s := r.await("blog", "says who has its port", func(s emperor.Status) bool { return s.State == emperor.Backoff && s.Error != "" })
	if !strings.Contains(s.Error, "port 8080/tcp of the host is taken by agent (pid ") || !strings.Contains(s.Error, "listens at [::]:8080)") {
		t.Errorf("blog: %s", s.Error)
	}
	r.reach("gate")
	if out := r.mustRun("check", "/run/t/emperor.ini"); strings.Contains(out, "9000") {
		t.Errorf("check takes what is published for somebody else's:\n%s", out)
	}
	if out := r.mustRun("status", "gate"); !strings.Contains(out, "published: 9000:8000, 9000:8000/udp\n") {
		t.Errorf("status:\n%s", out)
	}
	// Another vassal's: it is invalid, and both places are named.
	r.drop("shop", publishIni("127.0.0.1:9000:8000"))
	s = r.awaitState("shop", emperor.Invalid)
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitInvalid || !strings.Contains(out, "is already published by") {
		t.Errorf("check: exit code %d\n%s", code, out)
	}
	if want := "shop.ini:3: port 127.0.0.1:9000/tcp is already published by "; !strings.Contains(s.Error, want) || !strings.HasSuffix(s.Error, "gate.ini:3") {
		t.Errorf("shop: %s", s.Error)
	}
	// Another instance's.
	other := layRealm(t, w, "other", strings.NewReplacer("fief0", "fief1", "10.9.", "10.10.", "/emperor/", "/other/", "/run/t/vassals", "/run/t/others").Replace(nativeNetwork))
	w.Run(t, "mkdir", "/run/t/others")
	other.write("/run/t/others/mail.ini", publishIni("9000:8000"))
	other.start()
	s = other.await("mail", "says who has its port", func(s emperor.Status) bool { return s.State == emperor.Backoff && s.Error != "" })
	if !strings.Contains(s.Error, `port 9000/tcp of the host is taken by instance "emperor" of fiefdom (pid `) {
		t.Errorf("mail: %s", s.Error)
	}
	if err := other.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := other.wait(); code != exitOK { // what it leaves is looked for with the first one's
		t.Errorf("the other instance's exit code is %d", code)
	}
	if err := listener.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.reach("blog")
	if got, err := peerBy(r.Inet, "tcp", "198.51.100.1:8080"); got != "198.51.100.2" {
		t.Errorf("%q, %v", got, err)
	}
}

// Vassals of two networks do not reach each other, isolated or not; by what is
// published they do, and are seen under their own addresses.
func TestNetworksMeetByPublishedPortsOnly(t *testing.T) {
	t.Parallel()
	ini := nativeNetwork + "tuntap-router-isolate = off\n" +
		"tuntap-router = fief1 /run/fiefdom/emperor/fief1.sock\ntuntap-router-address = 10.10.0.1/16\ntuntap-router-nat = auto\ntuntap-router-isolate = off\n"
	r := newRealm(t, ini, map[string]string{
		"blog": publishIni("8080:8000", "8080:8000/udp"),
		"mail": "[uwsgi]\ntuntap-device = eth0 /run/fiefdom/emperor/fief1.sock\ntuntap-device-address = auto\ncommand = AGENT\n",
	})
	blog, mail := r.reach("blog"), r.reach("mail")
	if got, err := r.peerWithin(mail, blog.Addresses[0].String()+":8000"); err == nil {
		t.Errorf("a stranger is reached at its own address: %s", got)
	}
	if got, err := r.peerWithin(blog, mail.Addresses[0].String()+":8000"); err == nil {
		t.Errorf("a stranger is reached at its own address: %s", got)
	}
	if drops := r.ps("mail").Drops["isolate"]; drops == 0 {
		t.Error("the router did not drop it")
	}
	out, _ := r.run("explain", "mail", "out", "tcp", blog.Addresses[0].String()+":8000")
	if !strings.Contains(out, "networks are strangers to each other") {
		t.Errorf("explain:\n%s", out)
	}
	for _, address := range []string{"198.51.100.1:8080", "10.10.0.1:8080", "10.9.0.1:8080"} {
		if got, err := r.peerWithin(mail, address); got != mail.Addresses[0].String() {
			t.Errorf("by %s: %q, %v", address, got, err)
		}
	}
}

// In tyrant mode an owner has no port that he could not have by himself.
func TestTyrantKeepsLowPorts(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\n")
	r.Run(t, "chmod", "1777", realmDir+"/vassals")
	r.writeAs(iniPath("low"), publishIni("80:8000"), 2001, 2001)
	r.writeAs(iniPath("high"), publishIni("8080:8000"), 2001, 2001)
	r.start()
	s := r.awaitState("low", emperor.Invalid)
	if want := "low.ini:3: publish = 80:8000/tcp: a port below 1024 is not allowed in tyrant mode"; !strings.Contains(s.Error, want) {
		t.Error(s.Error)
	}
	r.reach("high")
	if got, err := peerBy(r.Inet, "tcp", "198.51.100.1:8080"); got != "198.51.100.2" {
		t.Errorf("%q, %v", got, err)
	}
}
