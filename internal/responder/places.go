package responder

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
)

var errLost = errors.New("an order without the sockets that it brings")

// places are where a process answers.
type places struct {
	mu     sync.Mutex
	open   map[uint64]io.Closer
	failed chan error // takes the first failure of a socket that was not closed
}

func newPlaces() *places { return &places{open: map[uint64]io.Closer{}, failed: make(chan error, 1)} }

// use opens what an order brings, and closes what it does not name any more.
func (p *places) use(s *server, o *order, brought []*os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, c := range p.open {
		if !slices.ContainsFunc(o.Places, func(pl place) bool { return pl.ID == id }) {
			delete(p.open, id)
			_ = c.Close()
		}
	}
	for i, pl := range o.Places[len(o.Places)-o.New:] {
		if err := p.add(s, pl, brought[i]); err != nil {
			return fmt.Errorf("socket of network %q: %w", pl.Network, err)
		}
	}
	return nil
}

func (p *places) add(s *server, pl place, f *os.File) error {
	defer f.Close()
	here := at{s, pl.Network}
	if pl.UDP {
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		conn, ok := c.(*net.UDPConn)
		if !ok {
			return errors.Join(errors.New("it is none of UDP"), c.Close())
		}
		p.serve(pl.ID, conn, func() error { return here.serveUDP(conn) })
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	p.serve(pl.ID, l, func() error { return here.serveTCP(l) })
	return nil
}

// serve has a socket served until it is closed. One that fails by itself ends the
// process; the next has the same sockets.
func (p *places) serve(id uint64, c io.Closer, answer func() error) {
	p.open[id] = c
	go func() { // ends with the socket, or with the process
		err := answer()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.open[id] != c {
			return
		}
		select {
		case p.failed <- fmt.Errorf("a socket: %w", err):
		default: // one is enough
		}
	}()
}
