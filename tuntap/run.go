package tuntap

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// Run moves packets until ctx is done and then frees everything that the
// router owns. It may be called once. An error means that a shard itself
// could not go on; no packet, peer or write error does that.
func (r *Router) Run(ctx context.Context) error {
	for _, s := range r.shards {
		if err := s.mail.open(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		for _, s := range r.shards {
			s.mail.poke()
		}
	})
	defer stop()
	var writer, others sync.WaitGroup
	writer.Go(r.writeLog)
	ends := make([]error, len(r.shards))
	for i, s := range r.shards[1:] {
		others.Go(func() {
			ends[i+1] = s.run(ctx)
			cancel() // an end by itself is everybody's
		})
	}
	ends[0] = r.shards[0].run(ctx)
	cancel()
	others.Wait()
	err := errors.Join(errors.Join(ends...), r.free())
	close(r.pending)
	writer.Wait()
	return err
}

// afterTurns has fn run on some shard once each of them has been between two
// drains: then none of them holds what it found before in the table, or in a
// batch. A shard that sleeps is woken. A shard that is alone need not be waited
// for: it is here, and its batches are looked at again before they are written.
func (r *Router) afterTurns(fn func()) {
	if len(r.shards) == 1 {
		fn()
		return
	}
	left := new(atomic.Int32)
	left.Store(int32(len(r.shards)))
	for _, s := range r.shards {
		s.mail.post(func() {
			if left.Add(-1) == 0 {
				fn()
			}
		})
	}
}

// free ends everything, when no shard runs any more. The peers' addresses die
// with the router: no events.
func (r *Router) free() error {
	r.events = Events{}
	for _, p := range r.peers {
		r.closePeer(p, ErrClosed)
	}
	for again := true; again; { // what one shard still has to tell another, and what waits for all
		again = false
		for _, s := range r.shards {
			again = s.mail.run() || again
		}
	}
	for _, n := range r.networks {
		n.shard.closeSource(n.host)
		r.shards[0].closeSource(n.listener)
		if n.gateway != nil {
			n.shard.closeSource(n.gateway.conn)
		}
	}
	r.closers.Wait()
	var err error
	for _, s := range r.shards {
		err = errors.Join(err, s.mail.close(), s.poll.close())
	}
	return err
}
