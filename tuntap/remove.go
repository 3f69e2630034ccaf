package tuntap

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

var errNetworkGone = errors.New("its network is gone")

// RemoveNetwork closes a network's peers, its device and its sockets. They are
// closed when it returns.
func (r *Router) RemoveNetwork(name string) error {
	closed := make(chan struct{})
	err := r.shards[0].mail.do(func() error {
		n := r.network(name)
		if n == nil {
			return fmt.Errorf("remove network %q: there is none of this name", name)
		}
		r.removeNetwork(n, func() { close(closed) })
		return nil
	})
	if err == nil {
		<-closed
	}
	return err
}

func (r *Router) removeNetwork(n *network, closed func()) {
	for _, p := range r.peers {
		if p.net == n {
			r.closePeer(p, errNetworkGone)
		}
	}
	r.view.Lock()
	r.networks = slices.DeleteFunc(r.networks, func(o *network) bool { return o == n })
	r.view.Unlock()
	r.paused = slices.DeleteFunc(r.paused, func(o *network) bool { return o == n })
	r.shards[0].closeSource(n.listener)
	n.shard.devices--
	fds := []int{n.host.fd}
	if n.gateway != nil {
		fds = append(fds, n.gateway.conn.fd)
	}
	r.shards[0].tell(n.shard, func() {
		n.hostGone.Store(true)
		n.shard.poll.remove(n.host)
		if n.gateway != nil {
			n.shard.poll.remove(n.gateway.conn)
		}
	})
	// As with a peer's device: any shard may be about to write to them.
	r.afterTurns(func() {
		r.closers.Go(func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
			closed()
		})
	})
}
