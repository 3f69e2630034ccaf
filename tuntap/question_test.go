package tuntap

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"fiefdom/tuntap/tuntest"
)

// A bucket gives its size at once, and then what comes back, however often or rarely
// it is asked.
func TestBucket(t *testing.T) {
	const rate, size, second = 2000, 100, int64(time.Second)
	for name, step := range map[string]int64{
		"asked all the time": second / 1_000_000, "at an odd pace": 333_333, "a little faster than they come back": second / rate * 3 / 4,
	} {
		var b bucket
		taken := int64(0)
		for now := int64(1); now <= 10*second; now += step {
			if b.take(now, rate, size) {
				taken++
			}
		}
		if want := int64(10*rate + size); taken < want-2 || taken > want {
			t.Errorf("%s: %d of %d were given in 10 s", name, taken, want)
		}
	}
	var b bucket
	now := 365 * 24 * 3600 * second
	for i := range 2 {
		if !b.takeSome(now, size, rate, size) || b.take(now, rate, size) {
			t.Errorf("it is not full after %d years", i+1)
		}
		now *= 2
	}
	if b.takeSome(now, size+1, rate, size) || !b.takeSome(now, size, rate, size) {
		t.Error("what it never can give has a price")
	}
}

// flooding is a network where names are answered, and how many of a packet pass that
// blog sends at one moment.
func flooding(t *testing.T, cfg NetworkConfig, most int, sent ...[]byte) (passed int) {
	t.Helper()
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	w.register6(end)
	p := w.holder(blog)
	w.on(p.shard, func() {
		pk := new(packet)
		for i := range most {
			b := append(make([]byte, room), sent[i%len(sent)]...)
			if len(sent[i%len(sent)]) > 0 && sent[i%len(sent)][0]>>4 == 0 { // with the device's header
				b = append(make([]byte, room-vnetLen), sent[i%len(sent)]...)
			}
			if why := pk.read(b); why != pass {
				t.Errorf("it is %s", why)
				return
			}
			switch v, _ := p.net.outward(p, pk, p.net.policy.Load(), 1000); v.why {
			case pass:
				passed++
			case DropRate:
			default:
				t.Errorf("dropped as %s", v.why)
				return
			}
		}
	})
	return passed
}

func answering() NetworkConfig {
	cfg := isolated()
	cfg.NamesAt = dnsPort
	return cfg
}

// unsegmented is count datagrams of a question's length that the kernel has not cut yet.
func unsegmented(src, dst netip.AddrPort, count int) []byte {
	const size = 32
	u := partial(src, dst, make([]byte, count*size))
	u.header[1] = vnetUDP
	binary.NativeEndian.PutUint16(u.header[4:], size)
	return u.framed()
}

// Of what a vassal asks at one moment so much passes as it may, whatever it is made of;
// of everything else all does.
func TestQuestionsAreBounded(t *testing.T) {
	led, none, indirect := answering(), answering(), answering()
	led.NamesAt, none.NamesAt, indirect.Direct = 10053, 0, false
	question := func(dst netip.Addr) []byte { return udp(blog, dst, 53) }
	from, at := netip.AddrPortFrom(blog, 40000), netip.AddrPortFrom(gateway, 53)
	const most = 2 * askBurst
	for _, c := range []struct {
		name string
		cfg  NetworkConfig
		sent [][]byte
		want int
	}{
		{"questions", answering(), [][]byte{question(gateway)}, askBurst},
		{"by IPv6", answering(), [][]byte{udp(blog6, gateway6, 53)}, askBurst},
		{"by both", answering(), [][]byte{question(gateway), udp(blog6, gateway6, 53)}, askBurst},
		{"not direct", indirect, [][]byte{question(gateway)}, askBurst},
		{"connections", answering(), [][]byte{tcp(blog, gateway, 53, tuntest.SYN)}, askBurst},
		{"what goes over a connection", answering(), [][]byte{tcp(blog, gateway, 53, tuntest.ACK)}, most},
		{"first parts", answering(), [][]byte{tuntest.Fragment(tuntest.UDP(from, at, make([]byte, 600)), 7, 0, 400)}, askBurst},
		{"not cut yet", answering(), [][]byte{unsegmented(from, at, 40)}, askBurst / 40},
		{"as long as they may be", answering(), [][]byte{tuntest.UDP(from, at, make([]byte, 65507))}, askBurst / 127},
		{"led to another port", led, [][]byte{question(gateway)}, askBurst},
		{"to that port itself", led, [][]byte{tuntest.UDP(from, netip.AddrPortFrom(gateway, 10053), nil)}, askBurst},
		{"where no names are answered", none, [][]byte{question(gateway)}, most},
		{"for others' resolvers", answering(), [][]byte{question(internet)}, most},
		{"pings of the router", answering(), [][]byte{tuntest.Echo(blog, gateway, 1, 1)}, most},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.NamesAt == 10053 {
				c.cfg.Isolate = false // which lets vassals ask at 53 only
			}
			if got := flooding(t, c.cfg, most, c.sent...); got != c.want {
				t.Errorf("%d of %d pass; want %d", got, most, c.want)
			}
		})
	}
}

// A vassal that asks too much keeps nobody else from asking, nor itself from anything
// else, and may ask again soon.
func TestTooManyQuestionsHurtTheirAskerAlone(t *testing.T) {
	w := newWorld(t, answering())
	end, other := w.vassal("blog", blog), w.vassal("shop", shop)
	p := w.holder(blog)
	w.on(p.shard, func() { p.asked.at = p.shard.now + int64(time.Hour) }) // it has asked very much
	end.Send(t, udp(blog, gateway, 53))
	w.dropped("blog", DropRate, 1)
	for _, c := range []struct {
		from *tuntest.End
		sent []byte
	}{{end, udp(blog, internet, 53)}, {other, udp(shop, gateway, 53)}} {
		c.from.Send(t, c.sent)
		if got := w.host.Receive(t); string(got) != string(c.sent) {
			t.Errorf("the host got % x", got)
		}
	}
	if got := w.r.LastDrops("blog")[0].Drops; len(got) != 1 || got[0].Reason != DropRate || got[0].Dst != gateway || got[0].Port != 53 {
		t.Errorf("it is told as %+v", got)
	}
	w.later(time.Hour)
	end.Send(t, udp(blog, gateway, 53))
	w.host.Receive(t)
}
