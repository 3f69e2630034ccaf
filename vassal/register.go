package vassal

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Register sends the packet that registers each native address, an echo to
// its gateway from inside the jail, and waits for the answer: then the device,
// the router and the host's side all work. It also waits for the router's own
// word that it registered the address, which may come later than the answer:
// from then on the jail knows its addresses, and the next router is told them.
// Rules may forbid the answer, so the word is enough after a moment; a foreign
// router gives none, so there the answer is.
func (j *Jail) Register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	for _, l := range j.links {
		for _, a := range l.Addresses {
			gw := l.gateway(a)
			if !gw.IsValid() {
				continue
			}
			if err := j.echo(ctx, l, a.Addr(), gw); err != nil {
				return fmt.Errorf("register %s: %w", a.Addr(), err)
			}
		}
	}
	return nil
}

const (
	registerTimeout = 5 * time.Second
	registerGrace   = 50 * time.Millisecond // for the answer, once the router has registered
	echoInterval    = 20 * time.Millisecond // doubled after each echo
)

// gateway is the router's address in a's network.
func (l *link) gateway(a netip.Prefix) netip.Addr {
	for _, gw := range l.Gateways {
		if a.Masked().Contains(gw) || l.Foreign && gw.Is4() == a.Addr().Is4() {
			return gw
		}
	}
	return netip.Addr{}
}

func (j *Jail) echo(ctx context.Context, l *link, from, to netip.Addr) error {
	var conn *icmp.PacketConn
	if err := j.Do(func() (err error) {
		network := "ip4:icmp"
		if from.Is6() {
			network = "ip6:ipv6-icmp"
		}
		conn, err = icmp.ListenPacket(network, from.String())
		return err
	}); err != nil {
		return err
	}
	answered := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { awaitEcho(conn, to, answered) })
	defer reader.Wait()
	defer conn.Close()

	if err := sendEcho(conn, to, 0); err != nil {
		return fmt.Errorf("echo to the gateway %s: %w", to, err)
	}
	told, more := false, (<-chan struct{})(nil)
	if !l.Foreign {
		told, more = j.told(l, from)
	}
	wait := echoInterval
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if told { // in another generation
		timer.Reset(registerGrace)
	}
	for seq := 1; ; seq++ {
		select {
		case <-answered:
			if told || l.Foreign {
				return nil
			}
			answered = nil
		case <-more:
			if told, more = j.told(l, from); told && answered == nil {
				return nil
			}
			if told {
				timer.Reset(registerGrace)
			}
		case <-timer.C:
			if told {
				return nil
			}
			if err := sendEcho(conn, to, seq); err != nil {
				return fmt.Errorf("echo to the gateway %s: %w", to, err)
			}
			timer.Reset(wait)
			wait *= 2
		case <-ctx.Done():
			if answered == nil {
				return fmt.Errorf("the gateway %s answered, but the router has not said that it registered the address: %w", to, ctx.Err())
			}
			return fmt.Errorf("neither the gateway %s nor the router answered an echo: %w", to, ctx.Err())
		}
	}
}

func sendEcho(conn *icmp.PacketConn, to netip.Addr, seq int) error {
	var kind icmp.Type = ipv4.ICMPTypeEcho
	if to.Is6() {
		kind = ipv6.ICMPTypeEchoRequest
	}
	m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: seq}}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()})
	return err
}

// awaitEcho ends when conn is closed or the gateway has answered.
func awaitEcho(conn *icmp.PacketConn, from netip.Addr, answered chan<- struct{}) {
	buf := make([]byte, 1500)
	for {
		n, addr, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		ip, ok := addr.(*net.IPAddr)
		reply := n > 0 && (buf[0] == byte(ipv4.ICMPTypeEchoReply) || buf[0] == byte(ipv6.ICMPTypeEchoReply))
		if !ok || !reply {
			continue
		}
		if a, valid := netip.AddrFromSlice(ip.IP); valid && a.Unmap() == from {
			close(answered)
			return
		}
	}
}
