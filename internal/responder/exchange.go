package responder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxStrays is how many datagrams that are no answer one question outlasts.
const maxStrays = 64

// errSpelling says that a resolver has not kept the spelling of the name, which
// tells its answers from those that somebody makes up.
var errSpelling = errors.New("the answer spells the name otherwise")

// exchange asks a resolver by UDP, and by TCP where that is not enough. Each
// question has a socket, and so a port, of its own.
func exchange(ctx context.Context, to netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	answer, err := over(ctx, "udp", to, m)
	if err == nil && answer.Truncated || errors.Is(err, errSpelling) {
		return over(ctx, "tcp", to, m)
	}
	return answer, err
}

func over(ctx context.Context, network string, to netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	q := m.Copy()
	q.Id, q.Question[0].Name = dns.Id(), respell(m.Question[0].Name)
	conn := &dns.Conn{Conn: c, UDPSize: maxUDP}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	for range maxStrays {
		answer, err := conn.ReadMsg()
		var lost net.Error
		switch {
		case errors.As(err, &lost), network == "tcp" && err != nil:
			return nil, err
		case err != nil || !answers(answer, q): // somebody guesses, or an old answer comes late
			continue
		case network == "udp" && answer.Question[0].Name != q.Question[0].Name:
			return nil, errSpelling
		}
		answer.Question[0].Name = m.Question[0].Name
		return answer, nil
	}
	return nil, fmt.Errorf("resolver %s: %d datagrams came, and none was the answer", to, maxStrays)
}

// answers says whether a message is the answer to a question, its spelling aside.
func answers(m, q *dns.Msg) bool {
	return m.Response && m.Id == q.Id && m.Opcode == q.Opcode && len(m.Question) == 1 &&
		m.Question[0].Qtype == q.Question[0].Qtype && m.Question[0].Qclass == q.Question[0].Qclass &&
		strings.EqualFold(m.Question[0].Name, q.Question[0].Name)
}

// respell spells a name with capitals by chance (draft-vixie-dnsext-dns0x20).
func respell(name string) string {
	b := []byte(strings.ToLower(name))
	for i, c := range b {
		if 'a' <= c && c <= 'z' && (i == 0 || b[i-1] != '\\') && rand.IntN(2) == 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
