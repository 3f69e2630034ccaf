package main

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// flushed are two networks, so that there is a way between vassals by the
// host's kernel too.
const flushed = nativeNetwork + `tuntap-router-address = fd00:9::1/64
tuntap-router = fief1 /run/fiefdom/emperor/fief1.sock
tuntap-router-address = 10.77.0.1/16
tuntap-router-address = fd00:77::1/64
tuntap-router-nat = auto
`

// Others flush the host's firewall again and again: ours is back in time, and
// meanwhile nothing passes between vassals that are kept apart. // T37
func TestFirewallFlushedByOthers(t *testing.T) {
	r := newRealm(t, flushed, map[string]string{
		"blog": agentIni, "shop": agentIni,
		"mail": agentIni + "tuntap-device = eth0 /run/fiefdom/emperor/fief1.sock\ntuntap-device-address = auto\n",
	})
	at := r.places("blog", "shop")
	mail, err := r.placeOf(r.awaitState("mail", "running"))
	if err != nil {
		t.Fatal(err)
	}
	defer mail.ns.Close()
	at["mail"] = mail
	chains := func() int { // an iptables-save of both families has what is ours
		return strings.Count(r.Run(t, "sh", "-c", "iptables-save; ip6tables-save"), "fiefdom-emperor")
	}
	whole := chains()

	var wg sync.WaitGroup
	stop := make(chan struct{})
	got := map[string]*atomic.Int64{"shop": {}, "mail": {}, "inet": {}}
	for name, count := range got {
		for _, six := range []bool{false, true} {
			if !at[name].addr(six).IsValid() {
				continue
			}
			wg.Go(func() { pester(t, at["blog"], at[name], six, count, stop) })
		}
	}
	const damages = 4
	for i := range 3 * damages {
		r.Run(t, "sh", "-ec", [damages]string{
			"iptables -F; ip6tables -F",
			"iptables-save -t nat >/run/t/saved; iptables -t nat -F; ip6tables -t nat -F; iptables-restore </run/t/saved",
			"printf '*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n' | tee /run/t/saved | iptables-restore; ip6tables-restore </run/t/saved",
			"nft flush ruleset",
		}[i%damages])
		nettest.Eventually(t, 2*time.Second*time.Duration(slowness()), "what is ours is back", func() bool { return chains() == whole })
	}
	close(stop)
	wg.Wait()
	if n := got["inet"].Load(); n == 0 {
		t.Error("nothing came anywhere, which proves nothing")
	}
	for _, name := range []string{"shop", "mail"} {
		if n := got[name].Load(); n > 0 {
			t.Errorf("%d packets from blog came to %s", n, name)
		}
	}
}

// pester sends a datagram each millisecond, and counts those that come.
func pester(t *testing.T, from, to place, six bool, count *atomic.Int64, stop <-chan struct{}) {
	var in net.PacketConn
	var out net.Conn
	err := netns.Do(to.ns, func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr(six), 0)))
		return err
	})
	if err == nil {
		defer in.Close()
		err = netns.Do(from.ns, func() (err error) {
			out, err = net.Dial("udp", in.LocalAddr().String())
			return err
		})
	}
	if err != nil {
		t.Errorf("from %s to %s: %v", from.name, to.name, err)
		return
	}
	defer out.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			if _, _, err := in.ReadFrom(buf); err != nil {
				return
			}
			count.Add(1)
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-stop:
			open = false
		case <-tick.C:
			_, _ = out.Write([]byte("hello")) // what is rejected comes back as an error
		}
	}
	in.Close()
	wg.Wait()
}
