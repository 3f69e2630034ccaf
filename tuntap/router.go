package tuntap

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
)

// Limits bound what foreign peers may cost. The zero value of a field is its default.
type Limits struct {
	Peers        int // all connections, the emperor's included; 4096
	Unregistered int // foreign ones without an address: the oldest gives way; 256
}

// Router moves the packets of its networks. Make it with New, fill it with
// AddNetwork, run it with Run; its methods may be called from anywhere but
// from within Events.
type Router struct {
	log        *slog.Logger
	events     Events
	emperorPID int32
	emperorUID uint32
	limits     Limits
	half       int64                                  // nanoseconds that half a frame may stand
	prepare    func(fd int) (cutsUDP bool, err error) // checks a device and sets its flags

	mail    *mailbox
	pending chan line // log lines
	view    sync.Mutex
	// networks and each network's peers change on the loop with view held:
	// the loop reads them freely, others with view held.
	networks []*network

	loop // what only the loop touches
}

// network is one router device with its table, chains and peers.
type network struct {
	r        *Router
	name     string
	policy   atomic.Pointer[policy]
	table    *table
	host     *source
	hostGone bool
	listener *source
	peers    []*peer // guarded as Router.networks

	answers bucket // of rejects to the host's side
	drops   drops  // of packets that belong to no peer
	noted   [reasons]int64
}

// New makes a router for the emperor with the given pid, whose hand-overs
// alone are accepted. Run frees it.
func New(log *slog.Logger, ev Events, emperorPID int) (*Router, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	m, err := newMailbox()
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	r := &Router{
		log: log, events: ev, mail: m,
		emperorPID: int32(emperorPID), emperorUID: processUID(emperorPID),
		limits: Limits{Peers: 4096, Unregistered: 256},
		half:   int64(2 * time.Second), prepare: prepareTun,
		pending: make(chan line, logPending),
	}
	r.loop.init(p)
	if _, err := p.add(m.fd, unix.EPOLLIN, func(uint32) { m.run() }); err != nil {
		return nil, errors.Join(err, m.close(), p.close())
	}
	return r, nil
}

// Limit sets the router's limits. Call it before Run.
func (r *Router) Limit(l Limits) {
	if l.Peers > 0 {
		r.limits.Peers = l.Peers
	}
	if l.Unregistered > 0 {
		r.limits.Unregistered = l.Unregistered
	}
}

// processUID returns the uid of a process, root's if it can not be seen. With
// the pid it names the emperor: a pid that was used again by somebody else's
// process is not enough.
func processUID(pid int) uint32 {
	st, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return 0
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Uid
	}
	return 0
}

// AddNetwork takes over a network's descriptors. Its name must be new.
func (r *Router) AddNetwork(cfg NetworkConfig, d Descriptors) error {
	fail := func(err error) error { return fmt.Errorf("add network %q: %w", cfg.Name, err) }
	listener := -1
	if d.Device == nil {
		return errors.Join(fail(errors.New("it has no device")), closeFile(d.Listener))
	}
	host, err := takeFile(d.Device)
	if d.Listener != nil {
		var lerr error
		listener, lerr = takeFile(d.Listener)
		err = errors.Join(err, lerr)
	}
	if err == nil {
		err = r.mail.do(func() error { return r.addNetwork(cfg, host, listener) })
	}
	if err == nil {
		return nil
	}
	for _, fd := range []int{host, listener} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return fail(err)
}

func (r *Router) addNetwork(cfg NetworkConfig, host, listener int) error {
	if r.network(cfg.Name) != nil {
		return errors.New("there is one of this name already")
	}
	cuts, err := r.prepare(host)
	if err != nil {
		return err
	}
	n := &network{r: r, name: cfg.Name, table: newTable(&cfg, nil)}
	n.policy.Store(newPolicy(cfg))
	if n.host, err = r.poll.add(host, r.whenServing(), n.hostReady); err != nil {
		return err
	}
	n.host.cuts = cuts
	if listener >= 0 {
		if n.listener, err = r.poll.add(listener, unix.EPOLLIN, n.listenerReady); err != nil {
			r.poll.remove(n.host)
			return err
		}
	}
	r.view.Lock()
	r.networks = append(r.networks, n)
	r.view.Unlock()
	return nil
}

func (r *Router) network(name string) *network {
	for _, n := range r.networks {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Update replaces the whole config of a network at once: chains, addresses,
// reservations. Connections and registrations stay, but an address that is the
// router's own now is taken from its peer.
func (r *Router) Update(cfg NetworkConfig) error {
	pol := newPolicy(cfg) // not on the loop: it may be long
	return r.mail.do(func() error {
		n := r.network(cfg.Name)
		if n == nil {
			return fmt.Errorf("update network %q: there is none of this name", cfg.Name)
		}
		var peers []*peer
		for _, p := range r.peers {
			if p.net != n {
				continue
			}
			peers = append(peers, p)
			n.adapt(p, pol)
		}
		n.policy.Store(pol)
		n.table = newTable(&pol.cfg, peers)
		return nil
	})
}

// adapt fits a peer to a new policy.
func (n *network) adapt(p *peer, pol *policy) {
	if !p.granted {
		p.may = pol.reservations(p.vassal)
	}
	before := len(p.prefixes)
	kept := slices.DeleteFunc(slices.Clone(p.prefixes), func(pfx netip.Prefix) bool {
		return pfx.IsSingleIP() && slices.Contains(pol.cfg.Own, pfx.Addr())
	})
	if len(kept) == before {
		return
	}
	n.r.say(slog.LevelWarn, "address of a peer is the router's own now", slog.String("network", n.name), slog.String("vassal", p.vassal))
	p.prefixes, p.registered = kept, [2]bool{}
	p.addrs = slices.DeleteFunc(p.addrs, func(a netip.Addr) bool { return slices.Contains(pol.cfg.Own, a) })
	for _, pfx := range kept {
		p.registered[family(pfx.Addr())] = true
	}
	p.publish()
}

// Serve starts reading packets. Before, only the emperor's hand-overs are
// taken, so that every vassal has its addresses back before anybody can claim them.
func (r *Router) Serve() {
	_ = r.mail.do(func() error { // a router that has ended serves nobody
		r.serving = true
		for _, n := range r.networks {
			if !n.hostGone {
				r.poll.want(n.host, unix.EPOLLIN)
			}
		}
		for _, p := range r.peers {
			r.attend(p)
		}
		return nil
	})
}

// Identified answers Events.Identify: conn is a connection of this vassal's;
// empty: foreign. It does not wait and may be called from within Identify.
func (r *Router) Identified(conn uint64, vassal string) {
	r.mail.post(func() {
		if p := r.peers[conn]; p != nil && !p.known {
			p.known, p.vassal = true, vassal
			p.may = p.net.policy.Load().reservations(vassal)
			p.publish()
			r.attend(p)
		}
	})
}

// Snapshot returns the counters of all networks. It does not disturb the loop.
func (r *Router) Snapshot() []NetworkStats {
	r.view.Lock()
	networks := slices.Clone(r.networks)
	peers := make([][]*peer, len(networks))
	for i, n := range networks {
		peers[i] = slices.Clone(n.peers)
	}
	r.view.Unlock()

	stats := make([]NetworkStats, len(networks))
	for i, n := range networks {
		pol := n.policy.Load()
		s := NetworkStats{Name: n.name, Peers: make([]PeerStats, len(peers[i])), Drops: n.drops.snapshot()}
		s.In, s.Out = ruleStats(pol.chain[firewall.In]), ruleStats(pol.chain[firewall.Out])
		for k, p := range peers[i] {
			s.Peers[k] = p.stats()
		}
		stats[i] = s
	}
	return stats
}
