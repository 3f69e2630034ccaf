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
	p := w.holder(blog)
	w.on(p.shard, func() {
		n, now, pk := p.net, p.shard.now, &p.shard.pk
		for b.Loop() {
			if pk.decode(syn) != pass {
				b.Fatal("malformed")
			}
			if v, _ := n.outward(p, pk, n.policy.Load(), now); v.why != pass {
				b.Fatal(v.why)
			}
		}
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

// BenchmarkCounter compares how a counter can count: an addition that several
// threads may do at once, and a store that only one may.
func BenchmarkCounter(b *testing.B) {
	var c counter
	b.Run("add", func(b *testing.B) {
		for b.Loop() {
			c.add(1)
		}
	})
	b.Run("store", func(b *testing.B) {
		for b.Loop() {
			c.n.Store(c.n.Load() + 1)
		}
	})
	b.Run("add by all CPUs", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.add(1)
			}
		})
	})
}

// BenchmarkDrop is a packet that is dropped: decided about, counted, kept as an example.
func BenchmarkDrop(b *testing.B) {
	w := newWorld(b, isolated())
	w.vassal("blog", blog)
	stolen := append(make([]byte, room), udp(shop, internet, 53)...)
	p := w.holder(blog)
	w.on(p.shard, func() {
		for b.Loop() {
			p.shard.fromPeer(p, stolen)
		}
	})
}
