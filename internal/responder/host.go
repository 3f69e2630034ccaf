package responder

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// isHosts says whether an address is the host's own: one that it would itself come
// from if it sent something there. The kernel lets no packet with such a source in
// from outside.
func isHosts(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, Port)))
	if err != nil {
		return false
	}
	defer c.Close()
	return localAddr(c) == a
}

// mayBeHosts says whether it is worth a look if an asker is the host itself. A
// router lets nobody else come by its device; on a bridge there are strangers, who do
// not make us look as often as they like.
func (s at) mayBeHosts(z *zone, a Asker) bool {
	n := z.networks[strings.ToLower(a.Network)]
	return n == nil || !n.Bridge || s.askers.looks.Allow()
}

func localAddr(c *net.UDPConn) netip.Addr {
	a, _ := c.LocalAddr().(*net.UDPAddr)
	return a.AddrPort().Addr().Unmap().WithZone("")
}

// overUDP also answers a program of the host's that asks from another address than
// the router's, such as one whose socket is older than the network. To the kernel it
// asks by the network's device; an answer by that would go to the vassals. (By IPv6 the
// kernel finds no way from the loopback device to another one's address: no answer.)
type overUDP struct {
	at
	conn *net.UDPConn
}

// ServeDNS answers a question that came within its asker's budget.
func (s overUDP) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if s.asker(w.RemoteAddr()).Network != s.network && !s.asksItself(w) {
		by, ok := s.host.Load(localAddr(s.conn))
		if !ok {
			return
		}
		w = toHost{w, by.(*net.UDPConn)}
	}
	s.at.ServeDNS(w, q)
}

// asksItself says whether a program of the host's asks from the very address, which by
// IPv6 is to the kernel by the network's device, too; the answer to that stays here.
func (s overUDP) asksItself(w dns.ResponseWriter) bool {
	remote, ok := w.RemoteAddr().(*net.UDPAddr)
	return ok && remote.AddrPort().Addr().Unmap().WithZone("") == localAddr(s.conn)
}

// toHost answers by the socket of the same address at the loopback device.
type toHost struct {
	dns.ResponseWriter
	by *net.UDPConn
}

func (w toHost) WriteMsg(reply *dns.Msg) error {
	m, err := reply.Pack()
	if err != nil {
		return err
	}
	_, err = w.by.WriteTo(m, w.RemoteAddr())
	return err
}
