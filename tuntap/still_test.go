package tuntap

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
	"fiefdom/tuntap/tuntest"
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

// farEnd is the descriptor of a device's far end, which stays the End's.
func (s *still) farEnd(p *peer) (fd int) {
	if err := s.ends[p].Control(func(got uintptr) { fd = int(got) }); err != nil {
		s.t.Fatal(err)
	}
	return fd
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
