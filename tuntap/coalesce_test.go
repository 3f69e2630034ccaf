package tuntap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fiefdom/tuntap/tuntest"
)

// Whatever is sent, each device gets exactly that, in order.
func TestMergedDatagramsAreThoseThatWereSent(t *testing.T) {
	s := newStill(t)
	merged := 0
	rapid.Check(t, func(t *rapid.T) {
		var sent []undone
		for range rapid.IntRange(1, 6).Draw(t, "runs") {
			run := drawRun(t)
			if rapid.Bool().Draw(t, "in turn") {
				run = inTurn(run, drawRun(t), drawRun(t))
			}
			if at := rapid.IntRange(0, len(sent)).Draw(t, "at"); at < len(sent) && rapid.Bool().Draw(t, "amid") {
				run = append(run, sent[at:]...)
				sent = sent[:at:at]
			}
			sent = append(sent, run...)
		}
		writes, err := s.pass(sent, s.towards)
		if err != nil {
			t.Fatal(err)
		}
		merged += len(sent) - total(writes)
	})
	if merged == 0 {
		t.Error("nothing was merged")
	}
}

// A burst of one flow costs as few writes as its bounds allow.
func TestBurstIsWrittenOnce(t *testing.T) {
	s := newStill(t)
	burstOf := func(count, size int, from, to netip.Addr) (run []undone) {
		for i := range count {
			u := partial(netip.AddrPortFrom(from, 4000), netip.AddrPortFrom(to, 53), make([]byte, size))
			if from.Is4() {
				binary.BigEndian.PutUint16(u.packet[4:], uint16(0xfff0+i)) // no DF, but they count
				tuntest.FixIPv4(u.packet)
			}
			run = append(run, u)
		}
		return run
	}
	short := func(run []undone, at, size int) []undone {
		from, to := netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(shop6, 53)
		run[at] = partial(from, to, make([]byte, size))
		return run
	}
	for name, c := range map[string]struct {
		sent []undone
		want int
	}{
		"64 datagrams":                     {burstOf(64, 64, blog, shop), 1},
		"64 datagrams of IPv6":             {burstOf(64, 64, blog6, shop6), 1},
		"64 to the host":                   {burstOf(64, 64, blog, internet), 1},
		"one":                              {burstOf(1, 64, blog, shop), 1},
		"more bytes than a packet has":     {burstOf(60, 1472, blog6, shop6), 2},
		"large ones, of which no two fit":  {burstOf(3, 32500, blog6, shop6), 3},
		"empty ones":                       {burstOf(4, 0, blog6, shop6), 4},
		"a short one ends its batch":       {short(burstOf(10, 64, blog6, shop6), 4, 63), 2},
		"a long one begins a batch":        {short(burstOf(10, 64, blog6, shop6), 4, 65), 3},
		"two flows one after the other":    {append(burstOf(9, 64, blog6, shop6), burstOf(9, 64, blog, shop)...), 2},
		"two devices, one after the other": {append(burstOf(9, 64, blog6, shop6), burstOf(9, 64, blog6, others6[0])...), 2},
		"two devices, in turn":             {inTurn(burstOf(20, 64, blog6, shop6), burstOf(20, 64, blog, others[0])), 2},
		"four devices, in turn": {inTurn(burstOf(9, 64, blog6, shop6), burstOf(9, 64, blog, others[0]),
			burstOf(9, 64, blog6, others6[1]), burstOf(9, 64, blog, internet)), 4},
		"two flows for one device, in turn":  {inTurn(burstOf(5, 64, blog6, shop6), burstOf(5, 64, blog, shop)), 10},
		"the same with something in between": {append(burstOf(9, 64, blog6, shop6), append(burstOf(1, 0, blog6, shop6), burstOf(9, 64, blog6, shop6)...)...), 3},
	} {
		t.Run(name, func(t *testing.T) {
			writes, err := s.pass(c.sent, s.towards)
			if err != nil {
				t.Fatal(err)
			}
			if n := total(writes); n != c.want {
				t.Errorf("%d writes; want %d", n, c.want)
			}
		})
	}
}

func inTurn(runs ...[]undone) (mixed []undone) {
	for more := true; more; {
		more = false
		for i, run := range runs {
			if len(run) > 0 {
				mixed, runs[i], more = append(mixed, run[0]), run[1:], true
			}
		}
	}
	return mixed
}

func total(writes map[*peer]int) (n int) {
	for _, w := range writes {
		n += w
	}
	return n
}

// Each datagram of a batch that can not be written is counted, at whom it was for.
func TestLostBatchIsCountedByDatagram(t *testing.T) {
	s := newStill(t)
	flow := func(to netip.Addr) []byte {
		return partial(netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(to, 53), make([]byte, 64)).framed()
	}
	for range 5 {
		s.write(flow(shop6))
	}
	for range 3 {
		s.write(flow(far6))
	}
	var ends [2]int
	for i, dev := range []*source{s.shop.dev, s.r.networks[0].host} {
		// A pipe's read end can not be written to.
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		ends[i] = dev.fd
		dev.fd = fds[0]
		defer closeAll(fds[:])
	}
	s.blog.deviceReady(unix.EPOLLIN)
	s.shop.dev.fd, s.r.networks[0].host.fd = ends[0], ends[1]
	if n := s.shop.drops[DropNotReady].load(); n != 5 || s.shop.rx.packets.load() != 0 {
		t.Errorf("%d drops and %d received at shop; want 5 and 0", n, s.shop.rx.packets.load())
	}
	if n := s.blog.drops[DropNotReady].load(); n != 3 {
		t.Errorf("%d drops at blog of what was for the host; want 3", n)
	}
}

// A device can go while something waits for it.
func TestBatchForADeviceThatWentIsLost(t *testing.T) {
	s := newStill(t)
	for range 3 {
		s.write(partial(netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(blog6, 53), make([]byte, 64)).framed())
	}
	if err := unix.Shutdown(s.farEnd(s.blog), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	s.blog.deviceReady(unix.EPOLLIN)
	if n := s.blog.drops[DropNotReady].load(); !s.blog.gone.Load() || n != 3 {
		t.Errorf("gone: %v, %d drops; want 3", s.blog.gone.Load(), n)
	}
}

// A stream, or a kernel before 6.2, gets datagrams one by one.
func TestOldKernelsGetSingleDatagrams(t *testing.T) {
	s := newStill(t)
	s.shop.dev.cuts = false
	var sent []undone
	for range 10 {
		sent = append(sent, partial(netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(shop6, 53), make([]byte, 64)))
	}
	writes, err := s.pass(sent, s.towards)
	if err != nil || writes[s.shop] != 10 {
		t.Errorf("%d writes, %v; want 10", writes[s.shop], err)
	}
}

func TestCoalesceAllocatesNothing(t *testing.T) {
	s := newStill(t)
	var sent [][]byte
	for i := range 60 {
		from, to := netip.AddrPortFrom(blog, 4000), netip.AddrPortFrom(shop, uint16(53+i/20))
		sent = append(sent, partial(from, to, make([]byte, 64+i/30)).framed())
	}
	sent[7][vnetLen+6] |= 0x40
	count := 0
	sink := func([]byte) { count++ }
	fd := s.farEnd(s.blog)
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range sent {
			if errno := rawWrite(fd, b); errno != 0 {
				t.Fatal(errno)
			}
		}
		s.blog.deviceReady(unix.EPOLLIN)
		s.received(s.shop, sink)
	}); n != 0 {
		t.Errorf("%v allocations a drain", n)
	}
	if count == 0 {
		t.Error("nothing came")
	}
}

// FuzzCoalesce changes bytes of headers and sizes in runs of datagrams.
func FuzzCoalesce(f *testing.F) {
	s := newStill(f)
	f.Add([]byte{10, 64, 0, 0, 10, 64, 0, 0})
	f.Add([]byte{0x85, 64, 9, 1, 3, 200, 34, 1, 0x41, 0, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		var sent []undone
		for ; len(script) >= 4 && len(sent) < 200; script = script[4:] {
			from, to := netip.AddrPortFrom(blog, 4000), netip.AddrPortFrom(shop, 53)
			if script[0]&0x80 != 0 {
				from, to = netip.AddrPortFrom(blog6, 4000), netip.AddrPortFrom(shop6, 53)
			}
			payload := bytes.Repeat(script[:1], int(script[1]))
			for range script[0]&0x3f + 1 {
				u := partial(from, to, payload)
				b := u.framed()
				b[int(script[2])%len(b)] ^= script[3]
				if script[0]&0x40 != 0 && b[vnetLen] == 0x45 {
					tuntest.FixIPv4(b[vnetLen:])
				}
				u = undone{b[:vnetLen:vnetLen], b[vnetLen:]}
				var p packet
				// What would not pass is no matter of this test, nor what asks to be cut.
				if p.read(append(make([]byte, room-vnetLen), b...)) != pass || p.undone.kind != vnetWhole || p.part == laterPart {
					break
				}
				if p.flow.Src != from.Addr() || p.flow.Dst != to.Addr() {
					break
				}
				sent = append(sent, u)
			}
		}
		if _, err := s.pass(sent, s.towards); err != nil {
			t.Fatal(err)
		}
	})
}
