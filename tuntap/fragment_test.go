package tuntap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"fiefdom/firewall"
	"fiefdom/tuntap/tuntest"
)

// part is a fragment of a datagram: bytes [start, end) of its payload.
type part struct{ start, end int }

func TestFragmentsAgainstDeniedPort(t *testing.T) { // T07: nothing reaches port 22
	families(t, func(t *testing.T, blog, shop, gateway, internet netip.Addr) {
		denied := tuntest.TCP(netip.AddrPortFrom(blog, 40000), netip.AddrPortFrom(internet, 22), 2, 1, 0, make([]byte, 44))
		good := tuntest.TCP(netip.AddrPortFrom(blog, 40000), netip.AddrPortFrom(internet, 80), 2, 1, 0, make([]byte, 44))
		head := len(good) - 64
		type sent struct {
			of []byte
			id uint32
			part
		}
		atomic := func(b []byte) []byte { return tuntest.Fragment(b, 7, 0, 64) }
		for _, c := range []struct {
			name string
			send []sent
			pass int // how many of them may pass
		}{
			{"whole", []sent{{denied, 1, part{0, 64}}}, 0},
			{"first and later", []sent{{denied, 1, part{0, 32}}, {denied, 1, part{32, 64}}}, 0},
			{"tiny first of 8", []sent{{denied, 1, part{0, 8}}, {denied, 1, part{8, 64}}}, 0},
			{"tiny first of 16", []sent{{denied, 1, part{0, 16}}, {denied, 1, part{16, 64}}}, 0},
			{"later alone", []sent{{denied, 1, part{32, 64}}}, 0},
			{"later before first", []sent{{good, 1, part{32, 64}}, {good, 1, part{0, 32}}}, 1},
			{"offset 8 alone", []sent{{denied, 1, part{8, 64}}}, 0},
			{"allowed, in order", []sent{{good, 1, part{0, 32}}, {good, 1, part{32, 64}}}, 2},
			{"allowed, three parts", []sent{{good, 1, part{0, 24}}, {good, 1, part{24, 48}}, {good, 1, part{48, 64}}}, 3},
			{"allowed, rest out of order", []sent{{good, 1, part{0, 24}}, {good, 1, part{48, 64}}, {good, 1, part{24, 48}}}, 3},
			{"overlap rewrites the flags", []sent{{good, 1, part{0, 32}}, {denied, 1, part{8, 64}}}, 1},
			{"overlap by the last bytes", []sent{{good, 1, part{0, 32}}, {denied, 1, part{24, 64}}}, 1},
			{"second first is denied", []sent{{good, 1, part{0, 32}}, {denied, 1, part{0, 32}}, {good, 1, part{32, 64}}}, 2},
			{"denied first, then good first", []sent{{denied, 1, part{0, 32}}, {good, 1, part{0, 32}}, {good, 1, part{32, 64}}}, 2},
			{"shorter first again", []sent{{good, 1, part{0, 48}}, {good, 1, part{0, 24}}, {denied, 1, part{24, 64}}}, 2},
			{"other id", []sent{{good, 1, part{0, 32}}, {denied, 2, part{32, 64}}}, 1},
		} {
			t.Run(c.name, func(t *testing.T) {
				w, end := denyingSSH(t, blog)
				for _, s := range c.send {
					end.Send(t, tuntest.Fragment(s.of, s.id, s.start, s.end))
				}
				for range c.pass {
					if b := w.host.Receive(t); bytes.Contains(b[head:], []byte{0, 22, 0, 0, 0, 1}) {
						t.Error("a header for port 22 passed")
					}
				}
				w.settled(end, blog)
			})
		}
		t.Run("atomic", func(t *testing.T) {
			w, end := denyingSSH(t, blog)
			end.Send(t, atomic(denied))
			w.dropped("blog", DropRule, 1)
			end.Send(t, atomic(good))
			w.host.Receive(t)
		})
		t.Run("expired", func(t *testing.T) {
			w, end := denyingSSH(t, blog)
			end.Send(t, tuntest.Fragment(good, 1, 0, 32))
			w.host.Receive(t)
			w.later(fragmentLifetime)
			end.Send(t, tuntest.Fragment(good, 1, 32, 64))
			w.dropped("blog", DropFragment, 1)
		})
		t.Run("towards the vassal", func(t *testing.T) {
			w, end := denyingSSH(t, blog)
			in := tuntest.TCP(netip.AddrPortFrom(internet, 40000), netip.AddrPortFrom(blog, 22), 2, 1, 0, make([]byte, 44))
			for _, p := range []part{{0, 8}, {8, 64}, {0, 32}, {32, 64}} {
				w.host.Send(t, tuntest.Fragment(in, 1, p.start, p.end))
			}
			w.host.Send(t, udp(internet, blog, 9))
			if b := end.Receive(t); string(b) != string(udp(internet, blog, 9)) {
				t.Errorf("the vassal got % x", b)
			}
		})
	})
}

// settled checks that the host got no more than was received already.
func (w *world) settled(end *tuntest.End, addr netip.Addr) {
	w.t.Helper()
	mark := udp(addr, internet, 9)
	if addr.Is6() {
		mark = udp(addr, gateway6, 9)
	}
	end.Send(w.t, mark)
	if got := w.host.Receive(w.t); string(got) != string(mark) {
		w.t.Errorf("more than wanted passed: % x", got)
	}
}

func denyingSSH(t *testing.T, addr netip.Addr) (*world, *tuntest.End) {
	cfg := native()
	ssh := firewall.Rule{Action: firewall.Deny, Proto: protoTCP, Ports: []firewall.PortRange{{First: 22, Last: 22}}}
	cfg.Out, cfg.In = []firewall.Rule{ssh}, []firewall.Rule{ssh}
	w := newWorld(t, cfg)
	return w, w.vassal("blog", addr)
}

func TestFirstPartBehindExtensionHeaders(t *testing.T) {
	w, end := denyingSSH(t, blog6)
	v6 := netip.MustParseAddr("2001:db8::7")
	ssh := tcp(blog6, v6, 22, 2)
	ext := []byte{6, 0, 1, 4, 0, 0, 0, 0}
	for name, b := range map[string][]byte{
		"destination options":         withExt(ssh, 60, ext...),
		"hop-by-hop":                  withExt(ssh, 0, ext...),
		"options after the fragment":  withExt(withExt(ssh, 60, ext...), 44, 60, 0, 0, 0, 0, 0, 0, 1),
		"options before the fragment": withExt(withExt(ssh, 44, 6, 0, 0, 0, 0, 0, 0, 1), 60, changed(ext, 0, 44)...),
	} {
		before := w.stats("blog").Drops[DropRule]
		end.Send(t, b)
		w.settled(end, blog6)
		if got := w.stats("blog").Drops[DropRule] - before; got != 1 {
			t.Errorf("%s: not dropped by the rule", name)
		}
	}
	// A first part whose header chain ends before the transport header (RFC 7112).
	first := withExt(ssh, 44, 60, 0, 0, 1, 0, 0, 0, 9)[:56]
	first[48] = 6
	binary.BigEndian.PutUint16(first[4:], uint16(len(first)-40))
	end.Send(t, first)
	w.dropped("blog", DropFragment, 1)
}

func TestFragmentsAreBounded(t *testing.T) {
	f := new(fragments)
	whole := tuntest.UDP(netip.AddrPortFrom(blog, 1), netip.AddrPortFrom(internet, 2), make([]byte, 56))
	var pk packet
	for id := range uint32(10000) {
		if why := pk.decode(tuntest.Fragment(whole, id, 0, 32)); why != pass {
			t.Fatal(why)
		}
		f.passed(&pk, int64(id)+1)
	}
	for _, id := range []uint32{9999, 9998} {
		pk.decode(tuntest.Fragment(whole, id, 32, 64))
		if !f.follows(&pk, 10001) {
			t.Errorf("datagram %d was pushed out", id)
		}
	}
}

func ExampleReason() {
	text, _ := DropNoRoute.MarshalText()
	fmt.Println(DropFragment, string(text))
	// Output: fragment no-route
}
