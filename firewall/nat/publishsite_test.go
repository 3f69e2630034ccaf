package nat

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// town is a site with more vassals:
//
//	pool, other ── (bridge) ── fief0 HOST eth0 ── inet
//	             stranger ──── fief1      eth1 ── lan
//
// The bridge stands for the router of fief0.
type town struct {
	*site
	other, stranger *nettest.NS
}

const (
	other4, other6       = "10.9.0.8", "fd00:9::8"
	stranger4, stranger6 = "10.77.0.7", "fd00:77::7"
)

func newTown(t *testing.T) *town {
	t.Helper()
	s := &site{host: nettest.NewNS(t), pool: nettest.NewNS(t), inet: nettest.NewNS(t), lan: nettest.NewNS(t)}
	w := &town{site: s, other: nettest.NewNS(t), stranger: nettest.NewNS(t)}
	s.host.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
	wire := nettest.NewNS(t)
	wire.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	wire.Run(t, "ip", "link", "set", "br0", "up")
	plug := func(port string, end nettest.End) {
		nettest.Veth(t, nettest.End{NS: wire, Name: port}, end)
		wire.Run(t, "ip", "link", "set", port, "master", "br0")
	}
	plug("host", nettest.End{NS: s.host, Name: "fief0", Addrs: prefixes(gate4+"/16", gate6+"/64")})
	plug("pool", nettest.End{NS: s.pool, Name: "eth0", Addrs: prefixes(pool4+"/16", pool6+"/64")})
	plug("other", nettest.End{NS: w.other, Name: "eth0", Addrs: prefixes(other4+"/16", other6+"/64")})
	nettest.Veth(t,
		nettest.End{NS: s.host, Name: "fief1", Addrs: prefixes("10.77.0.1/16", "fd00:77::1/64")},
		nettest.End{NS: w.stranger, Name: "eth0", Addrs: prefixes(stranger4+"/16", stranger6+"/64")})
	s.outside(t)
	for _, ns := range []*nettest.NS{s.pool, w.other} {
		ns.Run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects; echo 0 >/proc/sys/net/ipv4/conf/eth0/accept_redirects") // as in a jail
		ns.Route(t, netip.MustParseAddr(gate4))
		ns.Route(t, netip.MustParseAddr(gate6))
	}
	w.stranger.Route(t, netip.MustParseAddr("10.77.0.1"))
	w.stranger.Route(t, netip.MustParseAddr("fd00:77::1"))
	return w
}

// newRuledTown makes a town whose host has its rules.
func newRuledTown(t *testing.T) (*town, *Host) {
	t.Helper()
	w := newTown(t)
	h := newHost(t, w.host, "test", t.TempDir())
	apply(t, w.host, h, networks()...)
	return w, h
}

// networks are both of the town, the second not masqueraded.
func networks() []Network {
	return []Network{network(), {Device: "fief1", Pool: prefixes("10.77.0.0/16", "fd00:77::/64"), Gateways: addrs("10.77.0.1", "fd00:77::1")}}
}

// ofStranger are ports of the second network's.
func ofStranger(all ...Published) []Published {
	for i := range all {
		all[i].Device = "fief1"
	}
	return all
}

// publishOnLoopback publishes a port of each network by the host's loopback, and
// returns the second's.
func (w *town) publishOnLoopback(t *testing.T, h *Host) (stranger []Published) {
	t.Helper()
	first := both(port("127.0.0.1", 8080, 8080, pool4+":8000"), port("::1", 8080, 8080, "["+pool6+"]:8000"))
	stranger = ofStranger(both(port("127.0.0.1", 8081, 8081, stranger4+":8000"), port("::1", 8081, 8081, "["+stranger6+"]:8000"))...)
	publish(t, w.host, h, append(first, stranger...)...)
	wantAnswer(t, w.host, "127.0.0.1:8080", gate4)
	wantAnswer(t, w.host, "[::1]:8080", gate6)
	wantAnswer(t, w.host, "127.0.0.1:8081", "10.77.0.1")
	wantAnswer(t, w.host, "[::1]:8081", "fd00:77::1")
	return stranger
}

func publish(t *testing.T, ns *nettest.NS, h *Host, all ...Published) {
	t.Helper()
	ns.Do(t, func() {
		if err := h.Publish(all); err != nil {
			t.Fatal(err)
		}
	})
}

// port is one of the pool's, published for TCP.
func port(host string, first, last uint16, to string) Published {
	return Published{
		Device: "fief0", Host: netip.MustParseAddr(host), First: first, Last: last,
		Proto: unix.IPPROTO_TCP, To: netip.MustParseAddrPort(to),
	}
}

func (p Published) udp() Published {
	p.Proto = unix.IPPROTO_UDP
	return p
}

// everywhere is port 8080 of all addresses, of both protocols and families.
func everywhere() []Published {
	p4, p6 := port("0.0.0.0", 8080, 8080, pool4+":8000"), port("::", 8080, 8080, "["+pool6+"]:8000")
	return []Published{p4, p6, p4.udp(), p6.udp()}
}

// serve answers everybody who comes to a port with his address, and the port.
func serve(t *testing.T, ns *nettest.NS, ports ...int) {
	t.Helper()
	for _, port := range ports {
		for _, family := range []string{"4", "6"} {
			ns.Do(t, func() {
				ln, err := net.Listen("tcp"+family, fmt.Sprint(":", port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { ln.Close() })
				go func() {
					for {
						conn, err := ln.Accept()
						if err != nil {
							return
						}
						fmt.Fprintf(conn, "%s %d", hostOf(conn.RemoteAddr()), port)
						conn.Close()
					}
				}()
				udp, err := net.ListenPacket("udp"+family, fmt.Sprint(":", port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { udp.Close() })
				go func() {
					buf := make([]byte, 100)
					for {
						_, from, err := udp.ReadFrom(buf)
						if err != nil {
							return
						}
						_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %d", hostOf(from), port), from)
					}
				}()
			})
		}
	}
}

func hostOf(a net.Addr) string {
	host, _, _ := net.SplitHostPort(a.String())
	return host
}

// ask connects and returns the answer, or the error as text behind a "!".
func ask(t *testing.T, ns *nettest.NS, proto, addr string, wait time.Duration) (answer string) {
	t.Helper()
	ns.Do(t, func() {
		d := net.Dialer{Timeout: wait}
		conn, err := d.Dial(proto, addr)
		if err != nil {
			answer = "!" + err.Error()
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(wait))
		if proto == "udp" {
			_, _ = io.WriteString(conn, "hello")
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if answer = string(buf[:n]); err != nil {
			answer = "!" + err.Error()
		}
	})
	return answer
}

// wantAnswer asks by both protocols; want is who the vassal sees, or "" for
// nobody.
func wantAnswer(t *testing.T, from *nettest.NS, addr, want string) {
	t.Helper()
	for _, proto := range []string{"tcp", "udp"} {
		wantAnswerBy(t, from, proto, addr, want)
	}
}

func wantAnswerBy(t *testing.T, from *nettest.NS, proto, addr, want string) {
	t.Helper()
	wait := 200 * time.Millisecond
	if want != "" {
		wait = 5 * time.Second
	}
	got := ask(t, from, proto, addr, wait)
	if want == "" && !strings.HasPrefix(got, "!") || want != "" && !strings.HasPrefix(got, want+" ") {
		t.Errorf("%s %s: %q, want %q", proto, addr, got, want)
	}
}
