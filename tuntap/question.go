package tuntap

// What a peer may ask the responder. As many questions as that hears of one asker go
// through: the rest would fill the queue of its socket, which all vassals share.
const (
	dnsPort   = 53
	askRate   = 2000 // questions a second, of all the peer's addresses
	askBurst  = 2000 // at once
	askLength = 512  // bytes of a packet that count as one question (RFC 1035, 4.2.1)
)

// mayAsk judges a packet from p to an address where names are answered, also at port
// namesAt: what is a question, or opens a connection for some, has to be within the
// peer's budget. A packet that the kernel has not cut yet is as many as it becomes, and
// a long one as many as it takes room for.
func (p *peer) mayAsk(pk *packet, namesAt uint16, now int64) bool {
	f := &pk.flow
	if !f.HasPorts || f.DstPort != dnsPort && f.DstPort != namesAt {
		return true
	}
	switch f.Proto {
	case protoUDP:
	case protoTCP:
		if pk.l4[13]&(tcpSYN|tcpACK) != tcpSYN {
			return true
		}
	default:
		return true
	}
	packets, bytes := pk.onWire()
	return p.asked.takeSome(now, int64(max(packets, bytes/askLength)), askRate, askBurst)
}
