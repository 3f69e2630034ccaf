package responder

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// TestMain plays the responder when the package starts itself as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Process {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// rig is a responder process on a host with one network, and the jails of that.
type rig struct {
	*Keeper
	host, jail *nettest.NS
	pid        atomic.Int64
	served     chan struct{}
}

var server4 = netip.MustParseAddr("10.9.0.1")

// newRig starts a responder with a feed. The jails' addresses are all in one namespace.
func newRig(t *testing.T, f *Feed, jails ...string) *rig {
	t.Helper()
	r := &rig{host: nettest.NewNS(t), jail: nettest.NewNS(t), served: make(chan struct{}, 1)}
	var ends []netip.Prefix
	for _, a := range jails {
		ends = append(ends, netip.PrefixFrom(netip.MustParseAddr(a), 16))
	}
	nettest.Veth(t, nettest.End{NS: r.host, Name: "fief0", Addrs: []netip.Prefix{netip.PrefixFrom(server4, 16)}}, nettest.End{NS: r.jail, Name: "eth0", Addrs: ends})
	r.Keeper = &Keeper{Log: slog.New(slog.DiscardHandler), UID: 65521, GID: 65521}
	r.Started = func(pid int) error { r.pid.Store(int64(pid)); return nil }
	r.Served = func() { r.served <- struct{}{} }
	var sockets []Socket
	for _, network := range []string{"fief0", ""} {
		for _, udp := range []bool{true, false} {
			s := Socket{Network: network, Addr: netip.AddrPortFrom(server4, Port), UDP: udp}
			r.host.Do(t, func() {
				if err := s.Open(); err != nil {
					t.Fatal(err)
				}
			})
			t.Cleanup(func() { s.Close() })
			sockets = append(sockets, s)
		}
	}
	r.Use(sockets)
	r.Change(func(have *Feed) { *have = *f })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- netns.Do(r.host.Handle, func() error { return r.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.await(t)
	return r
}

// await waits until the process answers.
func (r *rig) await(t *testing.T) {
	t.Helper()
	select {
	case <-r.served:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not come up")
	}
}

// dial connects to the responder from a jail's address.
func (r *rig) dial(t *testing.T, network, from string) net.Conn {
	t.Helper()
	c, err := r.try(network, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) try(network, from string) (c net.Conn, err error) {
	at := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(at)}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(at)
	}
	err = netns.Do(r.jail.Handle, func() (err error) {
		c, err = d.Dial(network, netip.AddrPortFrom(server4, Port).String())
		return err
	})
	return c, err
}

// asks asks over a connection, and waits so long for the answer.
func asks(c net.Conn, q *dns.Msg, wait time.Duration) (*dns.Msg, error) {
	conn := &dns.Conn{Conn: c, UDPSize: dns.MaxMsgSize}
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		m, err := conn.ReadMsg()
		if err != nil || m.Id == q.Id { // else the late answer to one before
			return m, err
		}
	}
}
