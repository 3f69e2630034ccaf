package tuntap

import (
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

// BenchmarkDecide is the router's own share of a packet: decode, source,
// chains, isolate, route; no system call.
func BenchmarkDecide(b *testing.B) {
	cfg := isolated()
	for i := range 16 {
		cfg.Out = append(cfg.Out, firewall.Rule{Action: firewall.Deny, Dst: prefixes("203.0.113.0/24")[0], Line: i})
	}
	w := newWorld(b, cfg)
	w.vassal("blog", blog)
	syn := tcp(blog, internet, 443, tuntest.ACK)
	_ = w.r.mail.do(func() error {
		n := w.r.networks[0]
		p := n.table.owner(blog).peer
		var pk packet
		for b.Loop() {
			if pk.decode(syn) != pass || n.fromPeer(p, &pk).why != pass || n.table.owner(pk.flow.Dst).kind != ownerHost {
				b.Fatal("it does not pass")
			}
		}
		return nil
	})
}

// BenchmarkPing is a packet's way to the host and back over devices in memory.
func BenchmarkPing(b *testing.B) {
	w := newWorld(b, native())
	end := w.vassal("blog", blog)
	ping, pong := tuntest.Echo(blog, gateway, 1, 1), tuntest.Echo(gateway, blog, 1, 1)
	for b.Loop() {
		end.Send(b, ping)
		w.host.Receive(b)
		w.host.Send(b, pong)
		end.Receive(b)
	}
}
