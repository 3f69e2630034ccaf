package tuntap

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

func rejecting() NetworkConfig {
	cfg := native()
	rule := firewall.Rule{Action: firewall.Reject, Ports: []firewall.PortRange{{First: 22, Last: 22}}}
	for _, proto := range []uint8{protoTCP, protoUDP} {
		rule.Proto = proto
		cfg.Out, cfg.In = append(cfg.Out, rule), append(cfg.In, rule)
	}
	return cfg
}

func TestRejectIsAnswered(t *testing.T) {
	families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
		w := newWorld(t, rejecting())
		end := w.vassal("blog", blog)

		end.Send(t, tcp(blog, internet, 22, tuntest.SYN))
		checkReset(t, end.Receive(t), internet, blog, tuntest.RST|tuntest.ACK, 0, 1001)
		end.Send(t, tcp(blog, internet, 22, tuntest.ACK))
		checkReset(t, end.Receive(t), internet, blog, tuntest.RST, 2000, 0)
		end.Send(t, udp(blog, internet, 22))
		checkUnreachable(t, end.Receive(t), 13, 1, gateway, blog, udp(blog, internet, 22))

		w.host.Send(t, tcp(internet, blog, 22, tuntest.SYN))
		checkReset(t, w.host.Receive(t), blog, internet, tuntest.RST|tuntest.ACK, 0, 1001)
		w.host.Send(t, udp(internet, blog, 22))
		checkUnreachable(t, w.host.Receive(t), 13, 1, gateway, internet, udp(internet, blog, 22))

		w.dropped("blog", DropRule, 5)
		end.Send(t, tcp(blog, internet, 22, tuntest.RST)) // a reset gets no answer
		w.settle(end, blog)
		if !end.Empty() {
			t.Error("a reset was answered")
		}
	})
}

func checkReset(t *testing.T, b []byte, src, dst netip.Addr, flags byte, seq, ack uint32) {
	t.Helper()
	var p packet
	if why := p.decode(b); why != pass {
		t.Fatalf("answer is %v", why)
	}
	if p.flow.Src != src || p.flow.Dst != dst || p.flow.SrcPort != 22 || p.flow.DstPort != 40000 {
		t.Errorf("reset goes %+v", p.flow)
	}
	if p.l4[13] != flags || binary.BigEndian.Uint32(p.l4[4:]) != seq || binary.BigEndian.Uint32(p.l4[8:]) != ack {
		t.Errorf("reset is % x", p.l4)
	}
	checkSums(t, b)
}

// checkUnreachable checks an ICMP error; code4 and code6 are those of the families.
func checkUnreachable(t *testing.T, b []byte, code4, code6 byte, src, dst netip.Addr, about []byte) {
	t.Helper()
	var p packet
	if why := p.decode(b); why != pass {
		t.Fatalf("answer is %v", why)
	}
	typ, ok := p.icmpType()
	if want := map[bool][2]byte{false: {3, code4}, true: {1, code6}}[p.v6]; !ok || typ != want[0] || p.l4[1] != want[1] {
		t.Errorf("answer is % x", p.l4)
	}
	if p.flow.Src != src || p.flow.Dst != dst {
		t.Errorf("answer goes %+v", p.flow)
	}
	quoted := p.l4[8:]
	if len(quoted) < min(len(about), 28) || string(quoted) != string(about[:len(quoted)]) {
		t.Errorf("it quotes % x", quoted)
	}
	if p.v6 || len(b) > 0 {
		checkSums(t, b)
	}
}

func checkSums(t *testing.T, b []byte) {
	t.Helper()
	sum := tuntest.Checksum(b[20:]) // ICMP
	if b[0]>>4 == 4 {
		if tuntest.Checksum(b[:20]) != 0 {
			t.Error("header checksum is wrong")
		}
		if b[9] != protoICMP {
			sum = tuntest.TransportChecksum(b)
		}
	} else {
		sum = tuntest.TransportChecksum(b)
	}
	if sum != 0 {
		t.Errorf("checksum is off by %#x", sum)
	}
}

func TestAnswersAreRateLimited(t *testing.T) {
	w := newWorld(t, rejecting())
	end := w.vassal("blog", blog)
	const sent = 4 * rejectBurst
	for range sent {
		end.Send(t, tcp(blog, internet, 22, tuntest.SYN))
	}
	w.dropped("blog", DropRule, sent)
	got := 0
	for !end.Empty() {
		got++
	}
	if got < rejectBurst || got > 3*rejectBurst {
		t.Errorf("%d answers to %d packets; want about %d", got, sent, rejectBurst)
	}
}

func TestNoAnswer(t *testing.T) {
	first := tuntest.Fragment(tuntest.UDP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), make([]byte, 56)), 1, 32, 64)
	for name, b := range map[string][]byte{
		"ICMP error":       tuntest.ICMP(blog, internet, 3, 1, make([]byte, 32)),
		"ICMPv6 error":     tuntest.ICMP(blog6, shop6, 1, 1, make([]byte, 44)),
		"multicast":        udp(blog, netip.MustParseAddr("239.1.1.1"), 9),
		"broadcast":        udp(blog, broadcast4, 9),
		"later part":       first,
		"ICMP echo answer": tuntest.ICMP(blog, internet, 0, 0, nil),
	} {
		var p packet
		if why := p.decode(b); why != pass {
			t.Fatalf("%s: %v", name, why)
		}
		if n := p.answer(make([]byte, 1500), gateway, DropRule); n != 0 {
			t.Errorf("%s is answered with %d bytes", name, n)
		}
	}
}
