package tuntap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// ruler is the process whose hand-overs are accepted.
type ruler struct {
	pid int32
	uid uint32
}

// noRuler is nobody: SO_PEERCRED says 0 of a process that is not seen from here.
var noRuler = ruler{pid: -1}

func (r ruler) is(cred *unix.Ucred) bool { return cred.Pid == r.pid && cred.Uid == r.uid }

// ErrUnclaimed is why a peer closed whose emperor died, and whose device the
// next one did not hand over.
var ErrUnclaimed = errors.New("its emperor is gone, and the next one did not hand it over")

var errSuperseded = errors.New("another emperor came")

// Abandon tells the router that its emperor is gone. Packets move on; nobody may
// hand a device over, and whose new connections are is not asked, until there is
// another emperor.
func (r *Router) Abandon() {
	_ = r.shards[0].mail.do(func() error {
		r.emperor, r.ruled = noRuler, false
		return nil
	})
}

// Succeed makes a process the emperor, instead of the one before. All devices
// that were handed over are orphans from then on: they go on as they are, and
// the same device handed over for the same vassal takes an orphan's place, with
// its addresses and counters. Settle ends this.
func (r *Router) Succeed(pid int32, uid uint32) {
	_ = r.shards[0].mail.do(func() error {
		r.emperor, r.ruled = ruler{pid, uid}, false
		r.orphans = make(map[string][]*peer)
		for _, p := range r.peers {
			switch {
			case p.handed:
				r.hangUp(p)
				r.orphans[p.vassal] = append(r.orphans[p.vassal], p)
			case p.emperor:
				r.closePeer(p, errSuperseded) // a hand-over that never came to its end
			}
		}
		return nil
	})
}

// Settle is told that the new emperor has handed over what it wants to keep.
// The orphans that are left are closed, and it is asked whose the connections
// are that came meanwhile. A router that did not serve yet does now.
func (r *Router) Settle() {
	_ = r.shards[0].mail.do(func() error {
		for _, list := range r.orphans {
			for _, o := range list {
				r.closePeer(o, ErrUnclaimed)
			}
		}
		r.orphans, r.ruled = nil, true
		for _, p := range r.peers {
			if p.known {
				continue
			}
			if r.identify(p); p.known {
				r.attend(p)
			}
		}
		r.serve()
		return nil
	})
}

// orphanOf is the orphan whose device is handed over again, or nil. One that
// cannot go on as it is, since the hand-over says something else now, is closed.
func (r *Router) orphanOf(p *peer, h *Handover) *peer {
	for _, o := range r.orphans[h.Vassal] {
		if o.net != p.net || o.gone.Load() || !sameFile(o.dev.fd, p.hand.fd) {
			continue
		}
		if o.fits(h) {
			return o
		}
		r.closePeer(o, ErrUnclaimed)
	}
	return nil
}

// fits says whether a peer may keep what it has under another hand-over.
func (p *peer) fits(h *Handover) bool {
	may := h.May
	if len(may) == 0 {
		may = p.net.policy.Load().reservations(h.Vassal)
	}
	allowed := func(pfx netip.Prefix) bool {
		return len(may) == 0 || slices.ContainsFunc(may, func(m netip.Prefix) bool { return m.Masked() == pfx })
	}
	for _, pfx := range p.holds.Load().prefixes {
		if !allowed(pfx) {
			return false
		}
	}
	return p.ruled(h.Rules)
}

// inherit has the orphan o go on with p's connection as its life line. Nothing
// else of it changes, so no packet waits and no address is free meanwhile.
func (r *Router) inherit(o, p *peer, h *Handover) error {
	o.granted = len(h.May) > 0
	if !o.granted {
		h.May = o.net.policy.Load().reservations(o.vassal)
	}
	o.net.allow(o, h.May)
	held := o.holds.Load().addrs
	missing := slices.DeleteFunc(slices.Clone(h.Registered), func(a netip.Addr) bool { return slices.Contains(held, a) })
	if err := o.net.giveBack(o, missing); err != nil {
		return err
	}
	r.orphans[o.vassal] = slices.DeleteFunc(r.orphans[o.vassal], func(q *peer) bool { return q == o })
	conn := p.stream.conn
	conn.ready = o.streamReady
	o.stream.mu.Lock()
	o.stream.conn = conn
	o.stream.mu.Unlock()
	o.in, p.stream.conn = p.in, nil
	r.closePeer(p, nil)             // it was only a connection; the device came twice
	if r.events.Registered != nil { // the new emperor may have missed it
		for _, a := range held {
			r.events.Registered(o.net.name, o.vassal, a)
		}
	}
	return nil
}

// sameFile says whether two descriptors are of one open file: a flag that is set
// by one shows on the other. (A device is asked for its name only, and nobody
// without rights for its namespace; fcntl's F_DUPFD_QUERY is of Linux 6.10.)
func sameFile(a, b int) bool {
	const flag = unix.O_APPEND // means nothing to a device
	old, aerr := unix.FcntlInt(uintptr(a), unix.F_GETFL, 0)
	before, berr := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	if aerr != nil || berr != nil {
		return false
	}
	if _, err := unix.FcntlInt(uintptr(a), unix.F_SETFL, old^flag); err != nil {
		return false
	}
	after, err := unix.FcntlInt(uintptr(b), unix.F_GETFL, 0)
	_, back := unix.FcntlInt(uintptr(a), unix.F_SETFL, old)
	return err == nil && back == nil && before^after == flag
}

// NetworkState is a network as the next emperor has to know it. The descriptors
// are duplicates, and the receiver's.
type NetworkState struct {
	Config   NetworkConfig
	Device   int
	Listener int // -1: none
	Gateway  int // -1: none
}

// HandedDevice is a device that an emperor handed over. FD is a duplicate, and
// the receiver's.
type HandedDevice struct {
	ID         uint64 // of the peer; they grow
	Network    string
	Vassal     string
	FD         int
	Registered []netip.Addr
}

// Networks returns the router's networks, in the order in which they were added.
func (r *Router) Networks() (all []NetworkState, err error) {
	err = r.shards[0].mail.do(func() error {
		for _, n := range r.networks {
			s := NetworkState{Config: n.policy.Load().cfg, Listener: -1, Gateway: -1}
			var derr error
			if s.Device, derr = duplicate(n.host.fd); derr == nil && n.listener != nil {
				s.Listener, derr = duplicate(n.listener.fd)
			}
			if derr == nil && n.gateway != nil {
				s.Gateway, derr = duplicate(n.gateway.conn.fd)
			}
			all = append(all, s)
			if derr != nil {
				return fmt.Errorf("network %s: %w", n.name, derr)
			}
		}
		return nil
	})
	if err != nil {
		for _, s := range all {
			s.Close()
		}
		return nil, err
	}
	return all, nil
}

// Close closes the descriptors.
func (s *NetworkState) Close() {
	for _, fd := range []int{s.Device, s.Listener, s.Gateway} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Handed returns the devices that were handed over, most of them at the most,
// beginning after the peer that has the number after.
func (r *Router) Handed(after uint64, most int) (list []HandedDevice, err error) {
	err = r.shards[0].mail.do(func() error {
		var ids []uint64
		for id, p := range r.peers {
			if p.handed && id > after {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		for _, id := range ids[:min(len(ids), most)] {
			p := r.peers[id]
			fd, err := duplicate(p.dev.fd)
			if err != nil {
				return fmt.Errorf("device of vassal %s: %w", p.vassal, err)
			}
			list = append(list, HandedDevice{
				ID: id, Network: p.net.name, Vassal: p.vassal, FD: fd, Registered: slices.Clone(p.holds.Load().addrs),
			})
		}
		return nil
	})
	if err != nil {
		for _, d := range list {
			unix.Close(d.FD)
		}
		return nil, err
	}
	return list, nil
}

func duplicate(fd int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return fd, nil
}
