package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// place is a namespace that this process opens sockets in, which stay there
// whatever thread uses them. So both ends of every stream share one clock, and
// no vassal needs a program for it.
type place struct {
	name string
	ns   vnetns.NsHandle
	four netip.Addr
	six  netip.Addr
}

func (p place) addr(six bool) netip.Addr {
	if six {
		return p.six
	}
	return p.four
}

// placeOf opens the namespace of a running vassal; the caller closes it.
func (r *realm) placeOf(s emperor.Status) (place, error) {
	p := place{name: s.Name}
	for _, a := range s.Addresses {
		if a.Is4() {
			p.four = a
		} else {
			p.six = a
		}
	}
	var err error
	p.ns, err = vnetns.GetFromPath(r.Path(fmt.Sprintf("/proc/%d/ns/net", s.PID)))
	return p, err
}

// places are the steady ones of a realm: its host, its internet, and vassals.
func (r *realm) places(vassals ...string) map[string]place {
	r.t.Helper()
	all := map[string]place{
		"host": {"host", r.Host.Handle, nettest.HostAddr4, nettest.HostAddr6},
		"inet": {"inet", r.Inet.Handle, nettest.InetAddr4, nettest.InetAddr6},
	}
	for _, name := range vassals {
		r.reach(name)
		s := r.await(name, "has both addresses", func(s emperor.Status) bool { return len(s.Addresses) == 2 })
		p, err := r.placeOf(s)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { p.ns.Close() })
		all[name] = p
	}
	return all
}

// A record is what all traffic is made of: a sequence number, a hash over the
// rest, and bytes that depend on the number.
const (
	recordHead = 16
	recordSize = 64 << 10 // of streams
)

var (
	recordSeed = maphash.MakeSeed()
	recordPool = func() []byte {
		pool := make([]byte, 1<<20+recordSize)
		_, _ = rand.NewChaCha8([32]byte{7}).Read(pool)
		return pool
	}()
)

// fillRecord makes the record of a number, as long as buf.
func fillRecord(buf []byte, number uint64) {
	copy(buf[recordHead:], recordPool[number*977%(1<<20):])
	binary.BigEndian.PutUint64(buf, number)
	binary.BigEndian.PutUint64(buf[8:], recordHash(buf))
}

func recordHash(buf []byte) uint64 {
	return maphash.Bytes(recordSeed, buf[:8]) ^ maphash.Bytes(recordSeed, buf[recordHead:])
}

// checkRecord says whether buf is a record of the size, unharmed, and its number.
func checkRecord(buf []byte, size int) (number uint64, ok bool) {
	if len(buf) != size {
		return 0, false
	}
	return binary.BigEndian.Uint64(buf), binary.BigEndian.Uint64(buf[8:]) == recordHash(buf)
}

// flow is what became of one stream of records.
type flow struct {
	name    string
	sent    atomic.Int64 // records
	got     atomic.Int64 // records, unharmed
	bytes   atomic.Int64 // received
	corrupt atomic.Int64 // records: harmed, of a wrong size or, in a TCP stream, a wrong number
	last    atomic.Int64 // when something was read last, in nanoseconds since the traffic's start
	worst   atomic.Int64 // the longest gap between two reads, in nanoseconds
}

// traffic is flows until its context is done.
type traffic struct {
	begin time.Time
	wg    sync.WaitGroup

	mu    sync.Mutex
	flows []*flow
	errs  []error // of flows that have to go on
}

func (tr *traffic) since() int64 { return int64(time.Since(tr.begin)) }

func (tr *traffic) flow(format string, args ...any) *flow {
	f := &flow{name: fmt.Sprintf(format, args...)}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.flows = append(tr.flows, f)
	return f
}

func (tr *traffic) fail(ctx context.Context, f *flow, err error) {
	if ctx.Err() != nil {
		return // its sockets were closed
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.errs = append(tr.errs, fmt.Errorf("%s: %w", f.name, err))
}

func family(network string, six bool) string {
	if six {
		return network + "6"
	}
	return network + "4"
}

// cubic pins the congestion control, as the bench does.
func cubic(_, _ string, c syscall.RawConn) (err error) {
	ctl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
	})
	return errors.Join(ctl, err)
}

// tcpPair makes a TCP connection from one place to another.
func tcpPair(ctx context.Context, from, to place, six bool) (dialed, accepted net.Conn, err error) {
	// A vassal that floods fills its own queue, and loses the first segments of
	// its own connections too: the fifth try comes after 15 s, the sixth after 31.
	listen, dial := net.ListenConfig{Control: cubic}, net.Dialer{Control: cubic, Timeout: 3 * patience}
	var l net.Listener
	err = netns.Do(to.ns, func() (err error) {
		l, err = listen.Listen(ctx, family("tcp", six), netip.AddrPortFrom(to.addr(six), 0).String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	err = netns.Do(from.ns, func() (err error) {
		dialed, err = dial.DialContext(ctx, family("tcp", six), l.Addr().String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if accepted, err = l.Accept(); err != nil {
		dialed.Close()
		return nil, nil, err
	}
	return dialed, accepted, nil
}

// tcp sends from one place to another at full speed. With reverse the receiver
// dials: that is how the internet sends to a vassal.
func (tr *traffic) tcp(ctx context.Context, from, to place, six, reverse bool) (*flow, error) {
	f := tr.flow("%s %s>%s", family("tcp", six), from.name, to.name)
	caller, callee := from, to
	if reverse {
		caller, callee = to, from
	}
	out, in, err := tcpPair(ctx, caller, callee, six)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if reverse {
		out, in = in, out
	}
	context.AfterFunc(ctx, func() { out.Close(); in.Close() })
	tr.wg.Go(func() { tr.fail(ctx, f, f.sendRecords(out)) })
	tr.wg.Go(func() { tr.fail(ctx, f, f.receiveRecords(tr, in)) })
	return f, nil
}

// sendRecords ends by an error.
func (f *flow) sendRecords(w io.Writer) error {
	buf := make([]byte, recordSize)
	for number := uint64(0); ; number++ {
		fillRecord(buf, number)
		if _, err := w.Write(buf); err != nil {
			return err
		}
		f.sent.Add(1)
	}
}

// receiveRecords ends by an error, which a harmed record is one of.
func (f *flow) receiveRecords(tr *traffic, r io.Reader) error {
	buf := make([]byte, recordSize)
	f.last.Store(tr.since())
	for want := uint64(0); ; want++ {
		for have := 0; have < len(buf); {
			n, err := r.Read(buf[have:])
			if err != nil {
				return err
			}
			have += n
			f.bytes.Add(int64(n))
			now := tr.since()
			f.note(now - f.last.Swap(now))
		}
		if number, ok := checkRecord(buf, recordSize); !ok || number != want {
			f.corrupt.Add(1)
			return fmt.Errorf("record %d has number %d, hash right: %v", want, number, ok)
		}
		f.got.Add(1)
	}
}

// note keeps the longest gap, which somebody may set back to 0 meanwhile.
func (f *flow) note(gap int64) {
	for worst := f.worst.Load(); gap > worst && !f.worst.CompareAndSwap(worst, gap); worst = f.worst.Load() {
	}
}

// udp sends datagrams of a size, with pauses; 0 is a flood.
func (tr *traffic) udp(ctx context.Context, from, to place, six bool, size int, pause time.Duration) (*flow, error) {
	f := tr.flow("%s %s>%s %d", family("udp", six), from.name, to.name, size)
	var in, out net.Conn
	err := netns.Do(to.ns, func() (err error) {
		in, err = net.ListenUDP(family("udp", six), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr(six), 0)))
		return err
	})
	if err == nil {
		err = netns.Do(from.ns, func() (err error) {
			out, err = net.Dial(family("udp", six), in.LocalAddr().String())
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	context.AfterFunc(ctx, func() { in.Close(); out.Close() })
	tr.wg.Go(func() {
		buf := make([]byte, size)
		for number := uint64(0); ctx.Err() == nil; number++ {
			fillRecord(buf, number)
			if _, err := out.Write(buf); err == nil { // a datagram has no right to arrive
				f.sent.Add(1)
			}
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	})
	tr.wg.Go(func() {
		buf := make([]byte, 1<<16)
		for ctx.Err() == nil {
			n, err := in.Read(buf)
			if err != nil {
				continue
			}
			f.bytes.Add(int64(n))
			f.last.Store(tr.since())
			if _, ok := checkRecord(buf[:n], size); !ok {
				f.corrupt.Add(1)
				continue
			}
			f.got.Add(1)
		}
	})
	return f, nil
}

// ping sends echoes, one after the other.
func (tr *traffic) ping(ctx context.Context, from, to place, six bool, size int) (*flow, error) {
	f := tr.flow("%s %s>%s %d", family("ping", six), from.name, to.name, size)
	domain, proto, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	if six {
		domain, proto, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
	}
	var fd int
	err := netns.Do(from.ns, func() (err error) {
		// icmp(7): the kernel gives the echoes of such a socket identity and checksum.
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	conn, err := packetConn(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	target := &net.UDPAddr{IP: to.addr(six).AsSlice()}
	tr.wg.Go(func() {
		const head = 8 // type, code, checksum, identity, number
		echo, answer := make([]byte, head+size), make([]byte, 1<<16)
		echo[0] = request
		for number := uint64(0); ctx.Err() == nil; number++ {
			fillRecord(echo[head:], number)
			if _, err := conn.WriteTo(echo, target); err != nil {
				continue
			}
			f.sent.Add(1)
			for {
				if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					return
				}
				n, _, err := conn.ReadFrom(answer)
				if err != nil {
					break // lost
				}
				f.bytes.Add(int64(n))
				got, ok := checkRecord(answer[min(n, head):n], size)
				if !ok {
					f.corrupt.Add(1)
				}
				if got == number || !ok {
					f.got.Add(1)
					f.last.Store(tr.since())
					break
				}
			}
		}
	})
	return f, nil
}

// packetConn gives a socket to Go's poller.
func packetConn(fd int) (net.PacketConn, error) {
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	return net.FilePacketConn(file)
}

// steady starts flows that have to go on.
func (tr *traffic) steady(t *testing.T, starts ...func() (*flow, error)) {
	t.Helper()
	for _, start := range starts {
		if _, err := start(); err != nil {
			t.Fatal(err)
		}
	}
}

// verify fails the test for each flow that broke, carried nothing or lost a bit.
func (tr *traffic) verify(t *testing.T) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, err := range tr.errs {
		t.Error(err)
	}
	for _, f := range tr.flows {
		if f.corrupt.Load() > 0 || f.got.Load() == 0 {
			t.Errorf("%s: %d records came of %d sent, %d corrupt", f.name, f.got.Load(), f.sent.Load(), f.corrupt.Load())
		}
	}
}
