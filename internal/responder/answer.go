package responder

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

// localTTL is how long an answer about a vassal counts, in seconds. An address
// stays with its vassal, but a vassal may come and go.
const localTTL = 5

// maxUDP is the most that an answer has by UDP, in bytes: what no path cuts
// (dnsflagday.net/2020).
const maxUDP = 1232

// server answers.
type server struct {
	zone    atomic.Pointer[zone]
	askers  *askers
	forward *forwarder
	host    sync.Map // the UDP sockets at the loopback device, by their addresses
}

// at is the server at the sockets of one network.
type at struct {
	*server
	network string // empty: the host asks
}

func (s at) asker(remote net.Addr) Asker {
	var a netip.AddrPort
	switch r := remote.(type) {
	case *net.UDPAddr:
		a = r.AddrPort()
	case *net.TCPAddr:
		a = r.AddrPort()
	}
	who := Asker{Network: s.network, Addr: a.Addr().Unmap().WithZone("")}
	if z := s.zone.Load(); !z.admits(who) && s.mayBeHosts(z, who) && isHosts(who.Addr) {
		who.Network = ""
	}
	return who
}

// ServeDNS answers a question that came within its asker's budget.
func (s at) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := s.asker(w.RemoteAddr())
	reply := s.answer(q, a)
	if reply == nil {
		return
	}
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	fit(reply, q, udp)
	_ = w.WriteMsg(reply) // who asked may be gone
}

// fit makes an answer one that the asker can take.
func fit(reply, q *dns.Msg, udp bool) {
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		if udp {
			size = min(max(size, int(opt.UDPSize())), maxUDP)
		}
		reply.SetEdns0(maxUDP, opt.Do())
	}
	reply.Truncate(size)
}

// answer is the answer to a question; nil: none.
func (s at) answer(q *dns.Msg, a Asker) *dns.Msg {
	if q.Response || len(q.Question) != 1 {
		return nil
	}
	question := q.Question[0]
	opt := q.IsEdns0()
	switch {
	case opt != nil && opt.Version() != 0:
		return fail(q, dns.RcodeBadVers)
	case q.Opcode != dns.OpcodeQuery:
		return fail(q, dns.RcodeNotImplemented)
	case question.Qclass != dns.ClassINET || isMeta(question.Qtype):
		return fail(q, dns.RcodeRefused)
	}
	if reply := s.local(q, a); reply != nil {
		return reply
	}
	if !q.RecursionDesired {
		return fail(q, dns.RcodeRefused)
	}
	return s.ask(q, a)
}

// isMeta says whether a type asks for more than records of a name: transfers,
// everything, and what is no question at all (RFC 6895).
func isMeta(t uint16) bool {
	return t == dns.TypeNone || t == dns.TypeOPT || t >= 128 && t <= 255
}

// isOfZones says whether a type is of records that zones have, and no machines.
func isOfZones(t uint16) bool {
	return t == dns.TypeNS || t == dns.TypeSOA || t == dns.TypeDS || t == dns.TypeDNSKEY
}

func fail(q *dns.Msg, rcode int) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetRcode(q, rcode)
	reply.RecursionAvailable = true
	return reply
}

// local is the answer about a vassal; nil: the name is not ours.
func (s at) local(q *dns.Msg, a Asker) *dns.Msg {
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	z := s.zone.Load()
	ours := name == Zone || strings.HasSuffix(name, "."+Zone)
	reply := fail(q, dns.RcodeSuccess)
	reply.Authoritative = true
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: localTTL}
	if p, ok := reversed(name); ok {
		host, v := z.reverse(p, a)
		switch {
		case v == notOurs:
			return nil
		case v == unknown:
			reply.Rcode = dns.RcodeNameError
		case host != "" && question.Qtype == dns.TypePTR:
			reply.Answer = []dns.RR{&dns.PTR{Hdr: header, Ptr: host + "." + Zone + "."}}
		}
		return negative(reply)
	}
	found, v := z.lookup(name, a)
	switch {
	case v == notOurs:
		return nil
	case !ours && isOfZones(question.Qtype) && !strings.Contains(name, ".") && name != "localhost":
		return nil // the name may be a domain of the world's, too
	case v == unknown:
		reply.Rcode = dns.RcodeNameError
	}
	for _, addr := range found {
		switch {
		case addr.Is4() && question.Qtype == dns.TypeA:
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
		case addr.Is6() && question.Qtype == dns.TypeAAAA:
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	}
	switch {
	case name == Zone && question.Qtype == dns.TypeSOA:
		reply.Answer = []dns.RR{soa()}
	case name == Zone && question.Qtype == dns.TypeNS:
		reply.Answer = []dns.RR{&dns.NS{Hdr: header, Ns: "ns." + Zone + "."}}
	}
	return negative(reply)
}

// negative adds to an answer without records how long that counts (RFC 2308).
func negative(reply *dns.Msg) *dns.Msg {
	if len(reply.Answer) == 0 {
		reply.Ns = []dns.RR{soa()}
	}
	return reply
}

func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: Zone + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: localTTL},
		Ns:  "ns." + Zone + ".", Mbox: "nobody." + Zone + ".",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: localTTL,
	}
}

// ask forwards a question, if its asker does not wait for too many already.
func (s at) ask(q *dns.Msg, a Asker) *dns.Msg {
	release, ok := s.askers.wait(a)
	if !ok {
		return fail(q, dns.RcodeServerFailure)
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), forwardTime)
	defer cancel()
	return s.forward.answer(ctx, q)
}
