package tuntap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
)

// More vassals, so that there are more devices than batches.
var (
	others  = []netip.Addr{netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("10.9.0.10"), netip.MustParseAddr("10.9.0.11")}
	others6 = []netip.Addr{netip.MustParseAddr("fd09::9"), netip.MustParseAddr("fd09::a"), netip.MustParseAddr("fd09::b")}
	far6    = netip.MustParseAddr("2001:db8::7")
	turned  = netip.MustParseAddr("100.7.198.51") // internet, but its halves have changed places: sums are equal
)

// still is a router that does not run: the test turns its loop, so that it knows
// what is in a drain. Its devices are in memory and take large UDP packets.
type still struct {
	t          testing.TB
	r          *Router
	blog, shop *peer
	devices    []*peer                   // that blog can send to; nil: the host's
	ends       map[*peer]syscall.RawConn // likewise
	buf        []byte
	sink       func(b []byte)
	reader     func(fd uintptr) bool
}

func newStill(t testing.TB) *still {
	t.Helper()
	nettest.NoLeaks(t)
	s := &still{t: t, ends: make(map[*peer]syscall.RawConn), buf: make([]byte, bufferSize)}
	s.reader = func(fd uintptr) bool {
		for {
			n, errno := rawRead(int(fd), s.buf)
			if errno != 0 {
				return true
			}
			s.sink(s.buf[:n])
		}
	}
	var err error
	if s.r, err = New(slog.New(slog.DiscardHandler), Events{}, os.Getpid()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.r.free(); err != nil {
			t.Error(err)
		}
	})
	s.r.prepare = func(int) (bool, error) { return true, nil }
	device, end := tuntest.Pair(t)
	if err := s.r.AddNetwork(native(), Descriptors{Device: device}); err != nil {
		t.Fatal(err)
	}
	s.r.Serve()
	s.watch(nil, end)
	s.blog, s.shop = s.vassal("blog", blog, blog6), s.vassal("shop", shop, shop6)
	s.devices = []*peer{nil, s.shop}
	for i := range others {
		s.devices = append(s.devices, s.vassal("other", others[i], others6[i]))
	}
	return s
}

func (s *still) watch(p *peer, end *tuntest.End) {
	conn, err := end.File().SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	s.ends[p] = conn
}

func (s *still) vassal(name string, addrs ...netip.Addr) *peer {
	n := s.r.networks[0]
	p := newPeer(n)
	p.known, p.handed, p.vassal = true, true, name
	p.publish()
	device, end := tuntest.Pair(s.t)
	fd, err := takeFile(device)
	if err != nil {
		s.t.Fatal(err)
	}
	p.dev = p.shard.poll.source(fd, p.deviceReady)
	if err := p.shard.poll.add(p.dev, unix.EPOLLIN); err != nil {
		s.t.Fatal(err)
	}
	p.dev.cuts = true
	s.r.nextID++
	s.r.peers[s.r.nextID] = p
	for _, a := range addrs {
		if _, why := n.register(p, a); why != pass {
			s.t.Fatalf("register %v: %v", a, why)
		}
	}
	s.watch(p, end)
	return p
}

// write gives blog's device a packet with its header; false: there is no room now.
func (s *still) write(b []byte) bool {
	full := false
	if err := s.ends[s.blog].Write(func(fd uintptr) bool {
		errno := rawWrite(int(fd), b)
		full = errno == unix.EAGAIN
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
	return !full
}

// received calls sink with what waits at the far end of p's device, header included.
func (s *still) received(p *peer, sink func(b []byte)) {
	s.sink = sink
	if err := s.ends[p].Read(s.reader); err != nil {
		s.t.Fatal(err)
	}
}

// undone is a packet as a vassal's kernel hands it out, with the device's header.
type undone struct {
	header, packet []byte
}

func (u undone) framed() []byte { return append(append([]byte(nil), u.header...), u.packet...) }

// partial is a datagram whose checksum is left to others.
func partial(src, dst netip.AddrPort, payload []byte) undone {
	u := undone{make([]byte, vnetLen), tuntest.UDP(src, dst, payload)}
	l4 := 20
	if src.Addr().Is6() {
		l4 = 40
	}
	undo(u.packet, l4, udpChecksum)
	u.header[0] = vnetNeedsChecksum
	binary.NativeEndian.PutUint16(u.header[6:], uint16(l4))
	binary.NativeEndian.PutUint16(u.header[8:], udpChecksum)
	return u
}

// plainly is the reference: the packets that a kernel without any offloads would
// make of this one. It is written after __udp_gso_segment, and shares no code with
// the router.
func (u undone) plainly() [][]byte {
	b := append([]byte(nil), u.packet...)
	if u.header[0]&vnetNeedsChecksum == 0 {
		return [][]byte{b}
	}
	start := int(binary.NativeEndian.Uint16(u.header[6:]))
	place := start + int(binary.NativeEndian.Uint16(u.header[8:]))
	if u.header[1] == vnetWhole {
		return [][]byte{finished(b, start, place)}
	}
	size, head := int(binary.NativeEndian.Uint16(u.header[4:])), start+udpHeader
	length := len(b) - start
	var cut [][]byte
	for i, rest := 0, b[head:]; len(rest) > 0; i++ {
		n := min(size, len(rest))
		c := append(append([]byte(nil), b[:head]...), rest[:n]...)
		rest = rest[n:]
		if b[0]>>4 == 4 {
			binary.BigEndian.PutUint16(c[2:], uint16(len(c)))
			binary.BigEndian.PutUint16(c[4:], binary.BigEndian.Uint16(b[4:])+uint16(i))
			tuntest.FixIPv4(c)
		} else {
			binary.BigEndian.PutUint16(c[4:], uint16(len(c)-40))
		}
		binary.BigEndian.PutUint16(c[start+4:], uint16(udpHeader+n))
		// The partial sum is corrected for the length, not made anew.
		sum := (int(binary.BigEndian.Uint16(c[place:])) - length + udpHeader + n + 2*0xffff) % 0xffff
		binary.BigEndian.PutUint16(c[place:], uint16(sum))
		cut = append(cut, finished(c, start, place))
	}
	return cut
}

func finished(b []byte, start, place int) []byte {
	sum := tuntest.Checksum(b[start:])
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[place:], sum)
	return b
}

// modulo takes away what may differ: the id of a datagram that is never
// fragmented, and with it the header's checksum where that is right.
func modulo(b []byte) string {
	if b[0]>>4 == 4 && b[6]&0x40 != 0 && b[9] == protoUDP && len(b) >= 20 && tuntest.Checksum(b[:int(b[0]&15)*4]) == 0 {
		b = append([]byte(nil), b...)
		clear(b[4:6])
		clear(b[10:12])
	}
	return string(b)
}

// got is what came to a device.
type got struct {
	packets []string
	writes  int
	errs    []string
}

func (g *got) take(b []byte) {
	g.writes++
	u := undone{b[:vnetLen:vnetLen], b[vnetLen:]}
	var p packet
	if why := p.read(append(make([]byte, room-vnetLen), b...)); why != pass {
		g.errs = append(g.errs, fmt.Sprintf("the device was given what is %v", why))
		return
	}
	if err := u.valid(&p); err != nil {
		g.errs = append(g.errs, err.Error())
	}
	for i, c := range u.plainly() {
		g.packets = append(g.packets, modulo(c))
		if u.header[1] != vnetUDP || tuntest.TransportChecksum(c) != 0 {
			continue
		}
		own := make([]byte, bufferSize)
		if n := p.segment(own, i); !bytes.Equal(own[:n], c) {
			g.errs = append(g.errs, fmt.Sprintf("segment %d differs from the reference", i))
		}
	}
}

// valid says what Linux has against a large datagram (virtio_net_hdr_to_skb).
func (u undone) valid(p *packet) error {
	if u.header[1] != vnetUDP {
		return nil
	}
	head, size := len(p.raw)-len(p.l4)+udpHeader, p.undone.size
	switch {
	case len(u.packet) > batchBytes || len(u.packet)-head > size*batchSegments || len(u.packet)-head <= size:
		return fmt.Errorf("%d bytes in segments of %d", len(u.packet), size)
	case u.header[0] != vnetNeedsChecksum || p.undone.start != head-udpHeader || p.undone.place != udpChecksum:
		return fmt.Errorf("the checksum is not left to the kernel: % x", u.header)
	case int(binary.NativeEndian.Uint16(u.header[2:])) != head:
		return fmt.Errorf("header of %d bytes said to have % x", head, u.header[2:4])
	case int(binary.BigEndian.Uint16(p.l4[4:])) != len(p.l4):
		return fmt.Errorf("wrong length")
	}
	return nil
}

// pass sends everything from blog and compares what comes with the reference.
// It returns the number of writes by device.
func (s *still) pass(sent []undone, to func(undone) *peer) (map[*peer]int, error) {
	want, came := make(map[*peer][]string), make(map[*peer]*got)
	before := make([][2]uint64, len(s.devices))
	for i, p := range s.devices {
		came[p] = new(got)
		if p != nil {
			before[i] = [2]uint64{p.rx.packets.load(), p.rx.bytes.load()}
		}
	}
	turn := func() {
		for range 8 { // drains of 64: more than ever waits
			s.blog.deviceReady(unix.EPOLLIN)
			for i := range s.r.shards[0].batches {
				if s.r.shards[0].batches[i].dev != nil {
					came[nil].errs = append(came[nil].errs, "a batch is open after a drain")
				}
			}
			for _, p := range s.devices {
				s.received(p, came[p].take)
			}
		}
	}
	for i := 0; i < len(sent); {
		if !s.write(sent[i].framed()) {
			turn()
			continue
		}
		p := to(sent[i])
		for _, b := range sent[i].plainly() {
			want[p] = append(want[p], modulo(b))
		}
		i++
	}
	turn()
	writes := make(map[*peer]int)
	for i, p := range s.devices {
		g := came[p]
		writes[p] = g.writes
		if len(g.errs) > 0 {
			return nil, fmt.Errorf("device %d: %s", i, g.errs[0])
		}
		for k := range min(len(g.packets), len(want[p])) {
			if g.packets[k] != want[p][k] {
				return nil, fmt.Errorf("device %d, packet %d of %d:\n% x\nwant\n% x", i, k, len(want[p]), g.packets[k], want[p][k])
			}
		}
		if len(g.packets) != len(want[p]) {
			return nil, fmt.Errorf("device %d: %d packets; want %d; drops %v", i, len(g.packets), len(want[p]), s.blog.drops.snapshot())
		}
		if p == nil {
			continue
		}
		size := 0
		for _, b := range want[p] {
			size += len(b)
		}
		if n, b := p.rx.packets.load()-before[i][0], p.rx.bytes.load()-before[i][1]; int(n) != len(want[p]) || int(b) != size {
			return nil, fmt.Errorf("device %d: counted %d packets of %d bytes; want %d of %d", i, n, b, len(want[p]), size)
		}
	}
	return writes, nil
}

// towards is the device that a packet is for.
func (s *still) towards(u undone) *peer {
	var dst netip.Addr
	if u.packet[0]>>4 == 4 {
		dst = netip.AddrFrom4([4]byte(u.packet[16:]))
	} else {
		dst = netip.AddrFrom16([16]byte(u.packet[24:]))
	}
	return s.r.networks[0].table.Load().owner(dst).peer
}

// drawRun is some packets in a row that are alike, as programs send them.
func drawRun(t *rapid.T) []undone {
	six := rapid.IntRange(0, 2).Draw(t, "family") == 0
	src, dsts := blog, append([]netip.Addr{shop, shop, internet, turned}, others...)
	if six {
		src, dsts = blog6, append([]netip.Addr{shop6, shop6, far6}, others6...)
	}
	from := netip.AddrPortFrom(src, uint16(rapid.IntRange(4000, 4001).Draw(t, "source port")))
	to := netip.AddrPortFrom(rapid.SampledFrom(dsts).Draw(t, "to"), uint16(rapid.IntRange(53, 54).Draw(t, "port")))
	size := rapid.SampledFrom([]int{0, 1, 2, 64, 64, 1000, 1472, 20000}).Draw(t, "size")
	id := uint16(rapid.SampledFrom([]int{0, 7, 0xfffe}).Draw(t, "id"))
	idStep := uint16(rapid.SampledFrom([]int{1, 1, 0, 3}).Draw(t, "id step"))
	bits := rapid.SampledFrom([]byte{0, 0x40, 0x40, 0x80}).Draw(t, "DF")
	odd := rapid.IntRange(0, 24).Draw(t, "odd")
	all := rapid.Bool().Draw(t, "all odd")
	count := rapid.SampledFrom([]int{1, 2, 5, 63, 64, 65, 130}).Draw(t, "count")
	if size > 2000 {
		count = min(count, 5)
	}
	seed := rapid.Byte().Draw(t, "seed")
	var run []undone
	for i := range count {
		n := size
		if i > 0 && rapid.IntRange(0, 40).Draw(t, "length") == 0 {
			n = rapid.IntRange(0, size+1).Draw(t, "other size")
		}
		payload := make([]byte, n)
		for k := range payload {
			payload[k] = seed + byte(i) + byte(k)*7
		}
		u := partial(from, to, payload)
		if !six {
			binary.BigEndian.PutUint16(u.packet[4:], id)
			id += idStep
			u.packet[6] = bits
			tuntest.FixIPv4(u.packet)
		}
		if odd <= 12 && (all || rapid.IntRange(0, 9).Draw(t, "odd one") == 0) {
			u = u.twist(odd, from, to, payload)
		}
		run = append(run, u)
	}
	return run
}

// twist makes a packet one that must not be merged with its neighbours.
func (u undone) twist(how int, from, to netip.AddrPort, payload []byte) undone {
	b, four := u.packet, u.packet[0]>>4 == 4
	ip := 40
	if four {
		ip = 20
	}
	switch how {
	case 0: // checksum made already
		return undone{make([]byte, vnetLen), tuntest.UDP(from, to, payload)}
	case 1: // and vouched for
		h := make([]byte, vnetLen)
		h[0] = 2
		return undone{h, tuntest.UDP(from, to, payload)}
	case 2: // TTL, hop limit
		if four {
			b[8]--
		} else {
			b[7]--
		}
	case 3: // TOS, traffic class
		if four {
			b[1] = 0xb8
		} else {
			b[0] |= 4
		}
	case 4: // flow label; with IPv4 other fragment bits
		if four {
			b[6] ^= 0x40
		} else {
			b[3] = 9
		}
	case 5: // forged: the length of UDP
		b[ip+5]++
	case 6: // forged: the sum of the pseudo-header
		b[ip+7] ^= 0x55
	case 7: // forged: the header's checksum
		if four {
			b[10] ^= 1
		}
		return u
	case 8: // forged: the checksum elsewhere
		binary.NativeEndian.PutUint16(u.header[8:], 4)
	case 9: // TCP
		return undone{make([]byte, vnetLen), tuntest.TCP(from, to, tuntest.ACK, 1, 1, payload)}
	case 10: // a fragment
		whole := tuntest.UDP(from, to, append(payload, make([]byte, 64)...))
		return undone{make([]byte, vnetLen), tuntest.Fragment(whole, 77, 0, 16)}
	case 11: // options; extension headers
		options := []byte{0, 0, 0, byte(len(payload))} // the end, and what may differ behind it
		if !four {
			options = []byte{protoUDP, 0, 1, 4, 0, 0, 0, byte(len(payload))}
		}
		o := append(append(append([]byte(nil), b[:ip]...), options...), b[ip:]...)
		if four {
			o[0]++
			binary.BigEndian.PutUint16(o[2:], uint16(len(o)))
		} else {
			o[6] = extDest
			binary.BigEndian.PutUint16(o[4:], uint16(len(o)-40))
		}
		u.packet = o
		binary.NativeEndian.PutUint16(u.header[6:], uint16(ip+len(options)))
	case 12: // large already
		if len(payload) > 16 {
			u.header[1] = vnetUDP
			binary.NativeEndian.PutUint16(u.header[2:], uint16(ip+udpHeader))
			binary.NativeEndian.PutUint16(u.header[4:], 16+uint16(len(payload)/64))
		}
	}
	if four {
		tuntest.FixIPv4(u.packet)
	}
	return u
}

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

// farEnd is the descriptor of a device's far end, which stays the End's.
func (s *still) farEnd(p *peer) (fd int) {
	if err := s.ends[p].Control(func(got uintptr) { fd = int(got) }); err != nil {
		s.t.Fatal(err)
	}
	return fd
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
