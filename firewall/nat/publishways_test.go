package nat

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// both are ports as they are, and the same of UDP.
func both(all ...Published) (list []Published) {
	for _, p := range all {
		list = append(list, p, p.udp())
	}
	return list
}

func TestPublishOneAddress(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	publish(t, w.host, h, both(port(host4, 8080, 8080, pool4+":8000"), port(host6, 8080, 8080, "["+pool6+"]:8000"))...)
	for _, from := range []*nettest.NS{w.inet, w.lan, w.host, w.other, w.pool, w.stranger} {
		for _, addr := range []string{host4, "[" + host6 + "]"} {
			for _, proto := range []string{"tcp", "udp"} {
				if got := ask(t, from, proto, addr+":8080", 5*time.Second); !strings.HasSuffix(got, " 8000") {
					t.Errorf("%s %s: %q", proto, addr, got)
				}
			}
		}
	}
	for _, from := range []*nettest.NS{w.lan, w.host, w.other} {
		for _, addr := range []string{"192.0.2.1", "[2001:db8:192::1]"} {
			wantAnswer(t, from, addr+":8080", "")
		}
	}
	wantAnswer(t, w.host, "127.0.0.1:8080", "")
	wantAnswer(t, w.host, "[::1]:8080", "")
	// Nothing needs the loopback of the host.
	if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet"); got != "0" {
		t.Errorf("route_localnet is %s", got)
	}
	if got := w.host.Run(t, "ip", "-6", "route", "show", "table", "local", "::1"); strings.Contains(got, "fief0") {
		t.Errorf("a route:\n%s", got)
	}
}

// Ranges are moved as a whole; who is not on the list does not come in.
func TestPublishRangeFrom(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000, 8003, 8009)
	p4, p6 := port("0.0.0.0", 9000, 9009, pool4+":8000"), port("::", 9000, 9009, "["+pool6+"]:8000")
	publish(t, w.host, h, both(p4, p6)...)
	ask4 := func(from *nettest.NS, port, want int) {
		t.Helper()
		for _, proto := range []string{"tcp", "udp"} {
			for _, addr := range []string{host4, host6} {
				if got := ask(t, from, proto, net.JoinHostPort(addr, fmt.Sprint(port)), 5*time.Second); !strings.HasSuffix(got, fmt.Sprint(" ", want)) {
					t.Errorf("%s %s port %d: %q, want %d", proto, addr, port, got, want)
				}
			}
		}
	}
	for _, from := range []*nettest.NS{w.inet, w.host, w.other} {
		ask4(from, 9000, 8000)
		ask4(from, 9003, 8003)
		ask4(from, 9009, 8009)
	}
	wantAnswer(t, w.inet, host4+":8999", "")
	wantAnswer(t, w.inet, host4+":9010", "")

	p4.From, p6.From = prefixes(lan4+"/32", "203.0.113.0/24"), prefixes(lan6+"/128", "2001:db8:203::/48")
	publish(t, w.host, h, both(p4, p6)...)
	ask4(w.lan, 9003, 8003)
	for _, from := range []*nettest.NS{w.inet, w.host, w.other} {
		wantAnswer(t, from, host4+":9003", "")
		wantAnswer(t, from, net.JoinHostPort(host6, "9003"), "")
	}
}

// What is published by the host's loopback is for the host's own programs: no
// neighbour and no vassal reaches it, nor any other port there, however they
// address their packets.
func TestPublishLoopback(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	serve(t, w.host, 7000)
	serve(t, w.stranger, 8000)
	others := w.publishOnLoopback(t, h)
	wantAnswer(t, w.host, "127.0.0.1:7000", "127.0.0.1")
	wantAnswer(t, w.host, "[::1]:7000", "::1")
	for _, from := range []*nettest.NS{w.inet, w.lan, w.other, w.pool, w.stranger, w.host} {
		for _, addr := range []string{host4, host6, gate4, gate6, "192.0.2.1"} {
			wantAnswer(t, from, net.JoinHostPort(addr, "8080"), "")
		}
	}
	if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet") + sysctl(t, w.host, "ipv4/conf/all/route_localnet") + sysctl(t, w.host, "ipv4/conf/eth0/route_localnet"); got != "100" {
		t.Errorf("route_localnet of fief0, all, eth0: %s", got)
	}

	for name, ns := range map[string]*nettest.NS{"a neighbour": w.lan, "a vassal": w.other} {
		dev, via4, via6 := "fief0", gate4, gate6
		if ns == w.lan {
			dev, via4, via6 = "eth1", "192.0.2.1", "2001:db8:192::1"
		}
		t.Run(name, func(t *testing.T) {
			moveLoopback(t, ns, via4, via6)
			for _, p := range []string{"7000", "8080"} {
				wantAnswer(t, ns, "127.0.0.1:"+p, "")
				wantAnswer(t, ns, "[::1]:"+p, "")
			}
			arrived, taken := w.sweep(t, ns, dev)
			if arrived != 65535 || taken != 0 {
				t.Errorf("%d segments came, %d were taken; want 65535 and 0", arrived, taken)
			}
		})
	}
	// So that the 0 means something.
	w.host.Run(t, "iptables", "-t", "mangle", "-F", "fiefdom-test-dev")
	if _, taken := w.sweep(t, w.other, "fief0"); taken == 0 {
		t.Error("nothing was taken without our rule either")
	}

	publish(t, w.host, h)
	if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet"); got != "0" {
		t.Errorf("afterwards route_localnet is %s", got)
	}
	if got := w.host.Run(t, "ip", "-6", "route", "show", "table", "local", "::1"); strings.Contains(got, "fief0") {
		t.Errorf("afterwards there is a route:\n%s", got)
	}
	publish(t, w.host, h, others...) // one network needs it, the other does not
	wantAnswer(t, w.host, "[::1]:8081", "fd00:77::1")
	if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet") + sysctl(t, w.host, "ipv4/conf/fief1/route_localnet"); got != "01" {
		t.Errorf("route_localnet of fief0 and fief1: %s", got)
	}
	publish(t, w.host, h)
	if got, err := forwarding(t, w.host, h); err != nil || strings.Contains(fmt.Sprint(got), "route_localnet") {
		t.Errorf("noted: %v, %v", got, err)
	}
}

// Somebody, such as Kubernetes, has route_localnet on for all devices.
func TestLocalnetOfOthers(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	moveLoopback(t, w.other, gate4, gate6)
	watch(t, w.host, h)
	w.host.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
	nettest.Eventually(t, watchTick+soon, "loopback addresses from vassals are dropped", func() bool {
		all := rules(t, w.host) // the jump comes after what it leads to
		return strings.Contains(all, "-d 127.0.0.0/8 -i fief0 -j DROP") && strings.Contains(all, "-A PREROUTING -j fiefdom-test-dev")
	})
	if arrived, taken := w.sweep(t, w.other, "fief0"); arrived != 65535 || taken != 0 {
		t.Errorf("%d segments came, %d were taken; want 65535 and 0", arrived, taken)
	}
	if got, err := forwarding(t, w.host, h); err != nil || strings.Contains(fmt.Sprint(got), "route_localnet") {
		t.Errorf("noted as ours: %v, %v", got, err)
	}
}

// moveLoopback makes a namespace look for 127.0.0.0/8 and ::1 elsewhere.
func moveLoopback(t *testing.T, ns *nettest.NS, via4, via6 string) {
	t.Helper()
	ns.Run(t, "sh", "-ec", `echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
		ip address del 127.0.0.1/8 dev lo; ip address del ::1/128 dev lo
		ip route add 127.0.0.0/8 via `+via4+`; ip route add ::1/128 via `+via6+" dev eth0")
}

// sweep sends a SYN to every port of 127.0.0.1 out of a namespace, and counts
// those that come to the host by a device, and those that it would take.
func (w *town) sweep(t *testing.T, from *nettest.NS, dev string) (arrived, taken int) {
	t.Helper()
	count := func(table, chain string) (n int) {
		list := w.host.Run(t, "iptables", "-t", table, "-L", chain, "-nvxZ")
		if _, err := fmt.Sscan(strings.Split(list, "\n")[2], &n); err != nil {
			t.Fatalf("%v in\n%s", err, list)
		}
		return n
	}
	w.host.Run(t, "iptables", "-t", "raw", "-I", "PREROUTING", "-i", dev, "-d", "127.0.0.0/8")
	w.host.Run(t, "iptables", "-t", "mangle", "-I", "INPUT", "-i", dev, "-d", "127.0.0.0/8")
	defer w.host.Run(t, "iptables", "-t", "raw", "-D", "PREROUTING", "1")
	defer w.host.Run(t, "iptables", "-t", "mangle", "-D", "INPUT", "1")
	from.Do(t, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for p := 1; p <= 65535; p++ {
			segment := []byte{0x30, 0x39, byte(p >> 8), byte(p), 12: 5 << 4, 13: 0x02, 19: 0}
			if err := unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	nettest.Eventually(t, 10*time.Second, "all have come", func() bool {
		arrived += count("raw", "PREROUTING")
		return arrived >= 65535
	})
	return arrived, count("mangle", "INPUT")
}

// A sender that never pauses follows at once.
func TestPublishMovesUDPFlows(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	serve(t, w.other, 8001)
	for _, to := range []string{net.JoinHostPort(host4, "8080"), net.JoinHostPort(host6, "8080")} {
		var conn net.Conn
		w.inet.Do(t, func() {
			var err error
			if conn, err = net.Dial("udp", to); err != nil {
				t.Fatal(err)
			}
		})
		defer conn.Close()
		answered := func() string {
			if _, err := conn.Write([]byte("hello")); err != nil {
				return ""
			}
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			buf := make([]byte, 100)
			n, _ := conn.Read(buf)
			return string(buf[:n])
		}
		want := func(suffix string) {
			t.Helper()
			if suffix == "" {
				if got := answered(); got != "" {
					t.Errorf("%s: %q answers", to, got)
				}
				return
			}
			nettest.Eventually(t, 2*time.Second, to+" is answered by"+suffix, func() bool { return strings.HasSuffix(answered(), suffix) })
		}
		want("")
		publish(t, w.host, h, everywhere()...)
		want(" 8000")
		moved := everywhere()
		for i := range moved {
			addr := other4
			if moved[i].v6() {
				addr = other6
			}
			moved[i].To = netip.AddrPortFrom(netip.MustParseAddr(addr), 8001)
		}
		publish(t, w.host, h, moved...)
		want(" 8001")
		publish(t, w.host, h)
		want("")
	}
}

// What an emperor that was killed published goes on until the next one knows.
func TestPublishedOutlivesItsEmperor(t *testing.T) {
	for _, masquerade := range []string{Auto, ""} {
		t.Run("masquerade="+masquerade, func(t *testing.T) {
			t.Parallel()
			w := newTown(t)
			serve(t, w.pool, 8000)
			nets, dir := networks(), t.TempDir()
			nets[0].Masquerade = masquerade
			h := newHost(t, w.host, "test", dir)
			apply(t, w.host, h, nets...)
			publish(t, w.host, h, everywhere()...)
			all := func(t *testing.T, seen4, seen6 string) {
				t.Helper()
				wantAnswer(t, w.inet, host4+":8080", seen4)
				wantAnswer(t, w.inet, net.JoinHostPort(host6, "8080"), seen6)
			}
			all(t, inet4, inet6)
			before := rules(t, w.host)

			h = newHost(t, w.host, "test", dir)
			apply(t, w.host, h, nets...)
			all(t, inet4, inet6)
			wantAnswer(t, w.host, "127.0.0.1:8080", gate4)
			wantAnswer(t, w.host, "[::1]:8080", gate6)
			publish(t, w.host, h, everywhere()...)
			if got := rules(t, w.host); sorted(got) != sorted(before) {
				t.Errorf("the rules were\n%s\nand are\n%s", before, got)
			}
			h = newHost(t, w.host, "test", dir)
			apply(t, w.host, h, nets...)
			publish(t, w.host, h)
			all(t, "", "")
			if got := rules(t, w.host); strings.Contains(got, "-j DNAT") || strings.Contains(got, "-pre") {
				t.Errorf("left:\n%s", got)
			}
			publish(t, w.host, h, everywhere()...)
			remove(t, w.host, newHost(t, w.host, "test", dir)) // of a dead one
			if got := rules(t, w.host); strings.Contains(got, "fiefdom") {
				t.Errorf("left:\n%s", got)
			}
			if got := sysctl(t, w.host, "ipv4/conf/fief0/route_localnet"); got != "0" {
				t.Errorf("route_localnet is %s", got)
			}
		})
	}
}

// What could not be put in force once is later, by who asks again and by Watch.
func TestPublishIsTriedAgain(t *testing.T) {
	t.Parallel()
	w, h := newRuledTown(t)
	serve(t, w.pool, 8000)
	publish(t, w.host, h)
	fail := func() {
		t.Helper()
		var works []string
		h.mu.Lock()
		for _, f := range h.filters {
			works = append(works, f.restore)
			f.restore = "/bin/false"
		}
		h.mu.Unlock()
		w.host.Do(t, func() {
			if err := h.Publish(everywhere()); err == nil || !strings.Contains(err.Error(), "/bin/false") {
				t.Errorf("error %v", err)
			}
		})
		h.mu.Lock()
		for i, f := range h.filters {
			f.restore = works[i]
		}
		h.mu.Unlock()
	}
	fail()
	wantAnswer(t, w.inet, host4+":8080", "")
	publish(t, w.host, h, everywhere()...)
	wantAnswer(t, w.inet, host4+":8080", inet4)
	wantAnswer(t, w.inet, net.JoinHostPort(host6, "8080"), inet6)
	publish(t, w.host, h)
	watch(t, w.host, h)
	fail()
	nettest.Eventually(t, watchTick+soon, "it is published", func() bool {
		return strings.HasPrefix(ask(t, w.inet, "tcp", net.JoinHostPort(host6, "8080"), time.Second), inet6)
	})
	wantAnswer(t, w.inet, host4+":8080", inet4)
}
