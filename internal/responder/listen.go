package responder

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of a TCP connection.
const (
	firstTime = 2 * time.Second // for a question to come, whole
	idleTime  = 5 * time.Second // the same of the second and later ones
	perConn   = 128             // questions
)

// answering is what answers at a socket, whose kind it is not told.
func (s at) answering() *dns.Server {
	return &dns.Server{
		Handler: s, UDPSize: dns.MinMsgSize * 8, ReadTimeout: firstTime, WriteTimeout: firstTime,
		IdleTimeout: func() time.Duration { return idleTime }, MaxTCPQueries: perConn,
		DecorateReader: func(r dns.Reader) dns.Reader { return reader{r, s} },
		MsgAcceptFunc:  accept,
	}
}

// serveUDP answers at a socket until it is closed.
func (s at) serveUDP(c *net.UDPConn) error {
	server := s.answering()
	server.PacketConn, server.Handler = c, overUDP{s, c}
	if s.network == "" {
		s.host.Store(localAddr(c), c)
		defer s.host.CompareAndDelete(localAddr(c), c)
	}
	return server.ActivateAndServe()
}

// serveTCP is the same for connections.
func (s at) serveTCP(l net.Listener) error {
	server := s.answering()
	server.Listener = &listener{l, s}
	return server.ActivateAndServe()
}

// accept judges a message by its head: one question, and beside it nothing but
// what EDNS and signatures bring.
func accept(h dns.Header) dns.MsgAcceptAction {
	if action := dns.DefaultMsgAcceptFunc(h); action != dns.MsgAccept {
		return action
	}
	if h.Ancount > 0 || h.Nscount > 0 {
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// reader hears whom it may, before anything of a message is looked at.
type reader struct {
	dns.Reader
	at at
}

func (r reader) ReadUDP(conn *net.UDPConn, timeout time.Duration) ([]byte, *dns.SessionUDP, error) {
	for {
		m, session, err := r.Reader.ReadUDP(conn, timeout)
		if err != nil || r.at.hears(session.RemoteAddr()) {
			return m, session, err
		}
	}
}

var errBudget = errors.New("more questions than its asker may ask")

func (r reader) ReadTCP(conn net.Conn, timeout time.Duration) ([]byte, error) {
	m, err := r.Reader.ReadTCP(conn, timeout)
	if err == nil && !r.at.hears(conn.RemoteAddr()) {
		return nil, errBudget
	}
	return m, err
}

func (s at) hears(remote net.Addr) bool {
	a := s.asker(remote)
	return s.zone.Load().admits(a) && s.askers.hear(a)
}

// listener accepts what its askers may have.
type listener struct {
	net.Listener
	at at
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a := l.at.asker(c.RemoteAddr())
		if l.at.zone.Load().admits(a) {
			if release, ok := l.at.askers.connect(a); ok {
				return &conn{Conn: c, release: sync.OnceFunc(release)}, nil
			}
		}
		_ = c.(*net.TCPConn).SetLinger(0) // nothing of it stays
		_ = c.Close()
	}
}

type conn struct {
	net.Conn
	release func()
}

func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
