package tuntap

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const acceptBurst = 64

// listenerReady accepts connections, a bounded number a turn.
func (n *network) listenerReady(uint32) {
	for range acceptBurst {
		fd, _, err := unix.Accept4(n.listener.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			if err := n.r.welcome(n, fd); err != nil {
				unix.Close(fd)
				n.r.say(slog.LevelWarn, "connection refused", slog.String("network", n.name), slog.Any("err", err))
			}
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		default:
			// Out of descriptors or memory: the connection stays in the backlog
			// and would wake the shard for ever.
			n.r.shards[0].poll.want(n.listener, 0)
			n.r.paused = append(n.r.paused, n)
			n.r.resume = n.r.shards[0].now + int64(tickMillis*time.Millisecond)
			n.r.say(slog.LevelError, "accept connections", slog.String("network", n.name), slog.Any("err", err))
			return
		}
	}
}

// resumeListeners tries again, after a while, what could not accept.
func (r *Router) resumeListeners() {
	if r.shards[0].now < r.resume {
		return
	}
	for _, n := range r.paused {
		r.shards[0].poll.want(n.listener, unix.EPOLLIN)
	}
	r.paused = r.paused[:0]
}

// welcome makes a peer of a new connection. On an error fd is the caller's.
func (r *Router) welcome(n *network, fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("ask who connected: %w", err)
	}
	p := newPeer(n)
	p.uid, p.gid, p.pid = cred.Uid, cred.Gid, cred.Pid
	p.emperor = r.emperor.is(cred)
	if !p.emperor && !r.makeRoom() {
		return fmt.Errorf("all %d peers are in use", r.limits.Peers)
	}
	if err := p.askCredentials(fd); err != nil {
		return err
	}
	p.stream.conn = p.shard.poll.source(fd, p.streamReady)
	if err := p.shard.poll.add(p.stream.conn, 0); err != nil {
		return err
	}
	r.nextID++
	p.id = r.nextID
	r.peers[p.id] = p
	p.publish()
	if p.emperor {
		p.known = true
	} else {
		p.unknown = true
		r.unknown = append(r.unknown, p)
		r.show(p)
		r.identify(p)
	}
	r.attend(p)
	return nil
}

// makeRoom evicts the foreign peer that waits longest without an address, if
// that is needed. False: all peers have one.
func (r *Router) makeRoom() bool {
	for len(r.unknown) >= r.limits.Unregistered || len(r.peers) >= r.limits.Peers {
		if len(r.unknown) == 0 {
			return false
		}
		r.closePeer(r.unknown[0], errTooMany)
	}
	return true
}

// identify asks whose the connection is, now or when an emperor has settled. A
// kernel without SO_PEERPIDFD (before 6.5) can not say it surely: then the peer
// is foreign, which is the least.
func (r *Router) identify(p *peer) {
	if r.events.Identify == nil {
		p.known = true
		return
	}
	if !r.ruled {
		return
	}
	fd, err := unix.GetsockoptInt(p.stream.conn.fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		p.known = true
		return
	}
	r.events.Identify(p.id, os.NewFile(uintptr(fd), "pidfd"))
}

// show makes a peer visible to Snapshot.
func (r *Router) show(p *peer) {
	if !p.shown {
		p.shown = true
		r.view.Lock()
		p.net.peers = append(p.net.peers, p)
		r.view.Unlock()
	}
}

// settled is told that a peer has an address. One of another shard was never
// in the list, which is the first shard's: the emperor connected.
func (r *Router) settled(p *peer) {
	if p.unknown {
		p.unknown = false
		r.unknown = slices.DeleteFunc(r.unknown, func(q *peer) bool { return q == p })
	}
}

// closePeer ends a peer: its addresses are free, its descriptors closed. Only
// the first shard comes here.
func (r *Router) closePeer(p *peer, why error) {
	if p.gone.Load() {
		return
	}
	n := p.net
	n.release(p)
	r.settled(p)
	p.endCaptures()
	delete(r.peers, p.id)
	r.hangUp(p)
	p.hand.drop()
	if p.dev != nil {
		r.retire(p)
	}
	if !p.shown {
		return // a connection of the emperor's that became nothing
	}
	r.view.Lock()
	n.peers = slices.DeleteFunc(n.peers, func(q *peer) bool { return q == p })
	n.past.add(p.stats())
	r.view.Unlock()
	if r.events.Closed != nil {
		r.events.Closed(n.name, p.vassal, why)
	}
}

// retire closes a peer's device. Any shard may be about to write to it, so its
// number must not be used again before all of them have turned to something else.
func (r *Router) retire(p *peer) {
	s := p.shard
	s.devices--
	r.shards[0].tell(s, func() { s.poll.remove(p.dev) })
	r.afterTurns(func() {
		// The last close of a tun waits for the kernel for 20 ms and more.
		r.closers.Go(func() { unix.Close(p.dev.fd) })
	})
}
