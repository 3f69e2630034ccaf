package tuntap

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

// udpGateway is a network's UDP socket towards other routers: a datagram is one
// bare IP packet. uWSGI's wire has no header, and no proof of who sent it, so
// only the far ends that the config names are heard and spoken to.
//
// The host's device's shard reads it, every shard sends by it.
type udpGateway struct {
	conn           *source
	addr           netip.Addr // its own, for the log
	sent, received traffic
}

// addGateway makes fd the network's gateway.
func (n *network) addGateway(fd int, mask uint32) {
	n.gateway = &udpGateway{conn: n.shard.poll.source(fd, n.gatewayReady)}
	if sa, err := unix.Getsockname(fd); err == nil {
		if own, ok := sa.(*unix.SockaddrInet4); ok {
			n.gateway.addr = netip.AddrFrom4(own.Addr)
		}
	}
	n.r.shards[0].tell(n.shard, func() {
		if err := n.shard.poll.add(n.gateway.conn, mask); err != nil {
			n.r.say(slog.LevelError, "the network's gateway is not read", slog.String("network", n.name), slog.Any("err", err))
		}
	})
}

// elsewhere decides whether a packet of p leaves by the gateway: its device's
// own rules say so first (its ini's, or those it sent), then the network's
// routes. named: the operator did, by a route. The network has a gateway.
func (n *network) elsewhere(p *peer, pol *policy, pk *packet) (v verdict, named bool) {
	if own := p.own.Load(); own != nil && own.ways != nil {
		if v, routed := own.ways.match(&pol.routes, pk); routed {
			return v, false
		}
	}
	if b := p.block.Load(); b != nil {
		if u := b.match(firewall.Out, &pk.flow); u != nil && u.action == blockRoute {
			return pol.routes.towards(u.target), false
		}
	}
	return pol.routes.match(pk)
}

// toGateway sends a packet of p to a far end, with done what the kernel left
// undone. It never blocks.
func (s *shard) toGateway(n *network, p *peer, to *farEnd, framed []byte) {
	if why := s.sendFar(n.gateway, to, framed); why != pass {
		s.note(n, p, &s.pk, drop(why))
	}
}

// farSegments bounds what one packet of a vassal may be cut into: each segment
// is a system call, and the others wait.
const farSegments = 2048

func (s *shard) sendFar(g *udpGateway, to *farEnd, framed []byte) Reason {
	o := &s.pk.undone
	if o.kind == vnetWhole {
		o.finish(framed[room:])
		return g.send(to, framed[room:])
	}
	if packets, _ := s.pk.onWire(); packets > farSegments {
		return DropFull
	}
	for i := 0; ; i++ {
		n := s.pk.segment(s.flat[room:], i)
		if n == 0 {
			return pass
		}
		if why := g.send(to, s.flat[room:room+n]); why != pass {
			return why
		}
	}
}

// send sends one packet and says why it was not taken.
func (g *udpGateway) send(to *farEnd, packet []byte) Reason {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(g.conn.fd), uintptr(unsafe.Pointer(&packet[0])), uintptr(len(packet)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&to.sock)), unsafe.Sizeof(to.sock))
		switch errno {
		case 0:
			g.sent.add(1, len(packet))
			return pass
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EMSGSIZE:
			return DropFull
		case unix.ENETUNREACH, unix.EHOSTUNREACH:
			return DropNoRoute
		}
		return DropNotReady // EPERM: the host's firewall; EACCES: a broadcast address
	}
}

// gatewayReady reads packets of far ends.
func (n *network) gatewayReady(uint32) {
	n.shard.drainGateway(n)
	n.shard.endDrain()
}

func (s *shard) drainGateway(n *network) {
	for range burst {
		size, errno := s.receiveFar(n.gateway.conn.fd)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0: // nothing is left; or an error of the socket, gone now that it was told
			return
		}
		s.moved++
		s.fromGateway(n, s.sender.addrPort(), s.buf[:room+size])
	}
}

// receiveFar reads one datagram and who sent it.
func (s *shard) receiveFar(fd int) (int, syscall.Errno) {
	b := s.buf[room:]
	s.senderLen = uint32(unsafe.Sizeof(s.sender.sock))
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&s.sender.sock)), uintptr(unsafe.Pointer(&s.senderLen)))
	return int(n), errno
}

// fromGateway takes a packet of a far end all its way: that of a packet from
// the host. It is never answered, since anybody could have written the sender's
// address, and reaches peers only: neither the host nor another far end.
func (s *shard) fromGateway(n *network, from netip.AddrPort, framed []byte) {
	pk, pol := &s.pk, n.policy.Load()
	if pol.routes.ends[from] == nil {
		*pk = packet{flow: firewall.Flow{Src: from.Addr(), Dst: n.gateway.addr}} // for the log
		s.note(n, nil, pk, drop(DropForbidden))
		return
	}
	n.gateway.received.add(1, len(framed)-room)
	clear(framed[room-vnetLen : room])
	if why := pk.read(framed); why != pass {
		s.note(n, nil, pk, drop(why))
		return
	}
	t := n.table.Load()
	if src := pk.flow.Src; pol.never[src] || containsAddr(sourcesNever, src) || t.owner(src).kind == ownerPeer {
		s.note(n, nil, pk, drop(DropSpoofed))
		return
	}
	to := t.owner(pk.flow.Dst)
	if to.kind != ownerPeer {
		s.note(n, nil, pk, drop(DropNoRoute))
		return
	}
	v := n.towards(to.peer, pk, pol, &to.peer.came, s.now)
	if watched(nil, to.peer) {
		s.capture(nil, to.peer, pk, v)
	}
	if v.why != pass {
		s.note(n, to.peer, pk, v)
		return
	}
	s.deliver(to.peer, framed)
}

// farEnd is another router's gateway.
type farEnd struct{ sock unix.RawSockaddrInet4 }

func newFarEnd(a netip.AddrPort) *farEnd {
	e := &farEnd{unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&e.sock.Port))[:], a.Port())
	return e
}

func (e *farEnd) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&e.sock.Port))[:])
	return netip.AddrPortFrom(netip.AddrFrom4(e.sock.Addr), port)
}
