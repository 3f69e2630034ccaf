package tuntap

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// looker is the reading end of a capture.
type looker struct {
	t    *testing.T
	conn net.Conn
	got  Captured
}

func (w *world) look(t *testing.T, q CaptureQuery) *looker {
	t.Helper()
	ours, theirs := net.Pipe()
	if err := w.r.Capture(q, theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return &looker{t: t, conn: ours}
}

func (l *looker) next() Captured {
	l.t.Helper()
	if err := l.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	if err := ReadCapture(l.conn, &l.got); err != nil {
		l.t.Fatal(err)
	}
	return l.got
}

func TestCapture(t *testing.T) {
	cfg := isolated()
	cfg.Out = lines(t, "deny any 203.0.113.0/24", "reject any any tcp 25", "allow 10.9.0.7 10.9.0.8 udp")
	cfg.In = lines(t, "deny any any udp 99")
	w := newWorld(t, cfg)
	end := w.vassal("blog", blog)
	other, _ := w.handOver(Handover{Vassal: "shop", May: []netip.Prefix{single(shop)}, Rules: deviceRules(t, "in 10.9.0.7 any deny")})
	w.register(other, shop)
	l := w.look(t, CaptureQuery{Vassal: "blog"})
	for _, c := range []struct {
		name    string
		send    func([]byte)
		packet  []byte
		dir     firewall.Direction
		verdict string
	}{
		{"out", nil, udp(blog, internet, 53), firewall.Out, "allow"},
		{"a rule", nil, udp(blog, netip.MustParseAddr("203.0.113.1"), 53), firewall.Out, "deny emperor.ini:10"},
		{"a rule that rejects", nil, tcp(blog, internet, 25, tuntest.SYN), firewall.Out, "reject emperor.ini:11"},
		{"isolate", nil, tcp(blog, netip.MustParseAddr("192.168.1.1"), 80, tuntest.SYN), firewall.Out, "isolate"},
		{"spoofed", nil, udp(shop, internet, 53), firewall.Out, "spoofed"},
		{"malformed", nil, []byte("nonsense"), firewall.Out, "malformed"},
		{"the receiver's own rule", nil, udp(blog, shop, 53), firewall.Out, "deny, a rule of the other vassal"},
		{"chain in", nil, udp(blog, shop, 99), firewall.Out, "deny emperor.ini:10"},
		{"in", func(b []byte) { w.host.Send(t, b) }, tcp(internet, blog, 80, tuntest.SYN), firewall.In, "allow"},
		{"in, denied", func(b []byte) { w.host.Send(t, b) }, udp(internet, blog, 99), firewall.In, "deny emperor.ini:10"},
	} {
		if c.send == nil {
			c.send = func(b []byte) { end.Send(t, b) }
		}
		began := time.Now()
		c.send(c.packet)
		got := l.next()
		if got.Direction != c.dir || got.Verdict != c.verdict || string(got.Data) != string(c.packet) || got.Length != len(c.packet) || got.Time.Before(began.Add(-time.Minute)) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestCaptureFilter(t *testing.T) {
	w := newWorld(t, native())
	end := w.vassal("blog", blog)
	wanted := tcp(blog, internet, 443, tuntest.SYN)
	for name, c := range map[string]struct {
		query CaptureQuery
		not   []byte
	}{
		"protocol": {CaptureQuery{Proto: protoTCP}, udp(blog, internet, 443)},
		"port":     {CaptureQuery{Port: 443}, tcp(blog, internet, 80, tuntest.SYN)},
		"no ports": {CaptureQuery{Port: 443}, tuntest.Echo(blog, internet, 1, 1)},
		"host":     {CaptureQuery{Host: prefixes("198.51.100.0/24")[0]}, tcp(blog, gateway, 443, tuntest.SYN)},
		"all":      {CaptureQuery{Proto: protoTCP, Port: 443, Host: single(internet), Snap: 24}, tcp(blog, shop, 443, tuntest.SYN)},
	} {
		t.Run(name, func(t *testing.T) {
			c.query.Vassal = "blog"
			l := w.look(t, c.query)
			end.Send(t, c.not)
			end.Send(t, wanted)
			size := len(wanted)
			if c.query.Snap > 0 {
				size = c.query.Snap
			}
			if got := l.next(); string(got.Data) != string(wanted[:size]) || got.Length != len(wanted) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Who does not read loses packets, and is told how many; nobody else does.
func TestCaptureOfASlowReader(t *testing.T) {
	w := newWorld(t, native())
	end := w.vassal("blog", blog)
	l := w.look(t, CaptureQuery{Vassal: "blog"})
	big := tuntest.UDP(netip.AddrPortFrom(blog, 1000), netip.AddrPortFrom(internet, 53), make([]byte, 1200))
	const sent = 3 * captureRoom / 1000
	for range sent {
		end.Send(t, big)
		w.host.Receive(t)
	}
	packets, lost := 0, uint64(0)
	for packets+int(lost) < sent {
		if got := l.next(); got.Lost > 0 {
			lost = got.Lost
		} else {
			packets++
		}
	}
	if lost == 0 || packets+int(lost) != sent {
		t.Errorf("%d packets and %d lost of %d", packets, lost, sent)
	}
	l.conn.Close()
	p := w.holder(blog)
	nettest.Eventually(t, 20*time.Second, "nobody looks", func() bool { return p.taps.Load() == nil })
}

func TestCaptureEnds(t *testing.T) {
	w := newWorld(t, native())
	end, life := w.handOver(Handover{Vassal: "blog", May: []netip.Prefix{single(blog)}})
	w.register(end, blog)
	l := w.look(t, CaptureQuery{Vassal: "blog"})
	life.Close()
	if err := ReadCapture(l.conn, &l.got); !errors.Is(err, io.EOF) {
		t.Errorf("after the device: %v", err)
	}
	ours, theirs := net.Pipe()
	if err := w.r.Capture(CaptureQuery{Vassal: "blog"}, theirs); err == nil {
		t.Error("of a vassal that is gone")
	}
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a refused capture's connection: %v", err)
	}
	nettest.Eventually(t, 20*time.Second, "no capture is left", func() bool {
		left := 0
		w.on(w.r.shards[0], func() { left = len(w.r.captures) })
		return left == 0
	})
	w.vassal("blog", blog)
	var all []*looker
	for range captures {
		all = append(all, w.look(t, CaptureQuery{Vassal: "blog"}))
	}
	_, theirs = net.Pipe()
	if err := w.r.Capture(CaptureQuery{Vassal: "blog"}, theirs); err == nil {
		t.Error("there is no bound")
	}
	w.stop() // with captures
	if err := ReadCapture(all[0].conn, &l.got); !errors.Is(err, io.EOF) {
		t.Errorf("after the router: %v", err)
	}
}

func FuzzReadCapture(f *testing.F) {
	f.Add(appendRecord(nil, &Captured{Verdict: "allow", Length: 4, Time: time.Unix(1, 2)}, []byte("data")))
	f.Add(appendRecord(nil, &Captured{Lost: 7}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var c Captured
		for ReadCapture(r, &c) == nil {
			if len(c.Data) > c.Length {
				t.Fatalf("%+v", c)
			}
		}
	})
}
