package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

const (
	nearGateway = "198.51.100.1:4040"
	farGateway  = "198.51.100.2:4040"
	beyond      = "203.0.113.20" // behind the far gateway
)

// mirror is a far end in the internet that answers pings of the host's gateway.
func mirror(t *testing.T, ns *nettest.NS) {
	t.Helper()
	var conn *net.UDPConn
	ns.Do(t, func() {
		var err error
		if conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(farGateway))); err != nil {
			t.Fatal(err)
		}
	})
	var reader sync.WaitGroup
	t.Cleanup(func() { conn.Close(); reader.Wait() })
	reader.Go(func() {
		packet := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(packet)
			if err != nil {
				return
			}
			const echo = 8
			p := packet[:n]
			if n < 28 || p[0] != 0x45 || p[9] != syscall.IPPROTO_ICMP || p[20] != echo || from.String() != nearGateway {
				continue
			}
			copy(p[12:20], append(append([]byte{}, p[16:20]...), p[12:16]...))
			p[20], p[22], p[23] = 0, 0, 0
			binary.BigEndian.PutUint16(p[22:], tuntest.Checksum(p[20:]))
			_, _ = conn.WriteToUDPAddrPort(p, from)
		}
	})
}

// A vassal's own rule routes by the network's gateway, to a far end that the
// emperor's ini names, and only for this vassal.
func TestDeviceRulesRouteByTheGateway(t *testing.T) {
	t.Parallel()
	const device = "[uwsgi]\ntuntap-device-address = auto\n"
	const agent = "cap = net_raw\ncommand = AGENT\n"
	r := newRealm(t, strings.Replace(nativeNetwork, "stats.sock", "stats.sock "+nearGateway, 1)+"tuntap-router-gateway-peer = "+farGateway+"\n", map[string]string{
		"blog": device + "tuntap-device-rule = out any 203.0.113.0/24 route " + farGateway + "\n" + agent,
		"shop": device + agent,
		"wiki": device + "tuntap-device-rule = out any any gateway 198.51.100.2:4041\n" + agent,
	})
	mirror(t, r.Inet)
	blog, shop := r.reach("blog"), r.reach("shop")
	r.mustSh(blog, "ping -c 1 -W 5 "+beyond)
	r.mustSh(blog, "ping -c 1 -W 5 198.51.100.2") // by the host
	if out, err := r.sh(shop, "ping -c 1 -W 0.5 "+beyond); err == nil {
		t.Errorf("a vassal without the rule gets there too:\n%s", out)
	}
	const unnamed = "wiki.ini:3: 198.51.100.2:4041 is no far end of network fief0 (they are: 198.51.100.2:4040); the emperor's ini has to name it: tuntap-router-gateway-peer = 198.51.100.2:4041"
	if s := r.awaitState("wiki", emperor.Invalid); !strings.Contains(s.Error, unnamed) {
		t.Errorf("the error is %q; want %q", s.Error, unnamed)
	}
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitInvalid || !strings.Contains(out, unnamed) {
		t.Errorf("check says %d:\n%s", code, out)
	}
	r.killRouter()
	nettest.Eventually(t, patience, "the rule holds in the next router", func() bool {
		_, err := r.sh(blog, "ping -c 1 -W 1 "+beyond)
		return err == nil
	})
	if now := r.ps("blog"); now.PID != blog.PID {
		t.Errorf("blog was disturbed: %+v", now)
	}
	r.stop(syscall.SIGTERM)
}

// Without a gateway such a rule is an error with its line, and nothing starts.
func TestDeviceRulesRouteNowhereWithoutAGateway(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": "[uwsgi]\ntuntap-device-address = auto\ntuntap-device-rule = out any any route " + farGateway + "\ncommand = AGENT\n",
	})
	const want = "blog.ini:3: network fief0 has no UDP gateway to route packets by"
	if s := r.awaitState("blog", emperor.Invalid); !strings.Contains(s.Error, want) || s.PID != 0 {
		t.Errorf("got %+v; want %q", s, want)
	}
}

// A real uWSGI's router takes the rule by the bridge, and decides.
func TestDeviceRulesRouteAtARealRouter(t *testing.T) {
	t.Parallel()
	router := strings.Replace(realUWSGI, "/run/t/tuntap.stats", "/run/t/tuntap.stats "+nearGateway, 1)
	r := newBridgedRealm(t, nettest.NewWorld(t), router, map[string]string{
		"blog": strings.Replace(bridgedNatively, "cap =", "tuntap-device-rule = out any 203.0.113.0/24 gateway "+farGateway+"\ncap =", 1),
	})
	mirror(t, r.Inet)
	r.start()
	blog := r.reach("blog")
	r.mustSh(blog, "ping -c 1 -W 5 "+beyond)
	r.mustSh(blog, "ping -c 1 -W 5 10.9.0.1")
	r.stopUWSGI()
	r.stop(syscall.SIGTERM)
}
