package bounded

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// Listener is a listener with a bounded number of open connections.
type Listener struct {
	net.Listener
	most int

	mu   sync.Mutex
	open list.List // of *conn, the one that was silent for longest first
}

// Listen bounds the open connections of l.
func Listen(l net.Listener, most int) *Listener { return &Listener{Listener: l, most: most} }

type conn struct {
	net.Conn
	of    *Listener
	place *list.Element // guarded by of.mu; nil: it is closed
}

// Accept waits for a connection. If there are too many then, another is closed.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	now := &conn{Conn: c, of: l}
	l.mu.Lock()
	var out *conn
	if l.open.Len() >= l.most {
		out = l.open.Front().Value.(*conn)
		l.leave(out)
	}
	now.place = l.open.PushBack(now)
	l.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close() // whoever serves it hears of it
	}
	return now, nil
}

// Heard is told that a connection that was accepted has begun or ended something.
func (l *Listener) Heard(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ours, ok := c.(*conn); ok && ours.place != nil {
		l.open.MoveToBack(ours.place)
	}
}

// State is for http.Server.ConnState.
func (l *Listener) State(c net.Conn, s http.ConnState) {
	if s == http.StateActive || s == http.StateIdle {
		l.Heard(c)
	}
}

// leave gives a place back. The caller has l.mu.
func (l *Listener) leave(c *conn) {
	if c.place != nil {
		l.open.Remove(c.place)
		c.place = nil
	}
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	c.of.leave(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
