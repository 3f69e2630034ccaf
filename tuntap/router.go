package tuntap

import (
	"errors"
	"fmt"
	"log/slog"
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
	log     *slog.Logger
	events  Events
	limits  Limits
	half    int64                                  // nanoseconds that half a frame may stand
	prepare func(fd int) (cutsUDP bool, err error) // checks a device and sets its flags

	shards  []*shard       // never empty, and never changed once there is a network
	pending chan line      // log lines
	lines   gate           // for them
	closers sync.WaitGroup // goroutines that close devices
	view    sync.Mutex
	// networks and each network's peers change on the first shard with view
	// held: it reads them freely, others with view held.
	networks []*network

	first
}

// first is what only the first shard touches: it opens and closes peers, and
// reads their streams.
type first struct {
	peers    map[uint64]*peer
	nextID   uint64
	unknown  []*peer    // foreign and unregistered, oldest first
	halves   []*peer    // that stand within a frame, or did so lately
	paused   []*network // that can not accept connections now
	resume   int64      // the first shard's clock when they try again
	serving  bool
	message  recvBuffer
	emperor  ruler
	ruled    bool               // the emperor knows its vassals
	orphans  map[string][]*peer // by vassal: handed over by a former emperor, and not claimed; some may be gone
	captures []*lookout
}

// network is one router device with its table, chains and peers.
type network struct {
	r     *Router
	name  string
	shard *shard // reads the host's device

	// Every packet looks at these, without a lock; they change with mu held.
	policy atomic.Pointer[policy]
	table  atomic.Pointer[table]
	mu     sync.Mutex // and what a peer holds

	host     *source
	hostGone atomic.Bool
	listener *source
	gateway  *udpGateway // nil: none
	peers    []*peer     // guarded as Router.networks
	past     Totals      // of peers that are gone; guarded likewise

	answers bucket // of rejects to the host's side; its shard's
	drops   drops  // of packets that belong to no peer
	noted   notes
}

// New makes a router of one thread for the emperor with the given pid, whose
// hand-overs alone are accepted (see Succeed). Run frees it.
func New(log *slog.Logger, ev Events, emperorPID int) (*Router, error) {
	r := &Router{
		log: log, events: ev,
		first:  first{peers: make(map[uint64]*peer), emperor: ruler{int32(emperorPID), processUID(emperorPID)}, ruled: true},
		limits: Limits{Peers: 4096, Unregistered: 256},
		half:   int64(2 * time.Second), prepare: prepareTun,
		pending: make(chan line, logPending),
	}
	// A clock that begins with a second: its time is never 0.
	s, err := newShard(r, time.Now().Add(-time.Second))
	if err != nil {
		return nil, err
	}
	r.shards = []*shard{s}
	return r, nil
}

// MaxThreads bounds Threads.
const MaxThreads = 64

// Threads sets how many threads move packets: 1 to MaxThreads. Call it before
// AddNetwork. An error leaves the router with those that could be made.
func (r *Router) Threads(n int) error {
	if n < 1 || n > MaxThreads {
		return fmt.Errorf("%d threads: want 1 to %d", n, MaxThreads)
	}
	for len(r.shards) < n {
		s, err := newShard(r, r.shards[0].start)
		if err != nil {
			return err
		}
		r.shards = append(r.shards, s)
	}
	return nil
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
	if d.Device == nil {
		return errors.Join(fail(errors.New("it has no device")), closeFile(d.Listener), closeFile(d.Gateway))
	}
	host, err := takeFile(d.Device)
	listener, lerr := takeOptional(d.Listener)
	gateway, gerr := takeOptional(d.Gateway)
	err = errors.Join(err, lerr, gerr)
	if err == nil {
		err = r.shards[0].mail.do(func() error { return r.addNetwork(cfg, host, listener, gateway) })
	}
	if err == nil {
		return nil
	}
	for _, fd := range []int{host, listener, gateway} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return fail(err)
}

func (r *Router) addNetwork(cfg NetworkConfig, host, listener, gateway int) error {
	if r.network(cfg.Name) != nil {
		return errors.New("there is one of this name already")
	}
	cuts, err := r.prepare(host)
	if err != nil {
		return err
	}
	first := r.shards[0]
	n := &network{r: r, name: cfg.Name, shard: r.shards[len(r.networks)%len(r.shards)]}
	n.table.Store(newTable(&cfg, nil))
	n.policy.Store(newPolicy(cfg))
	n.host = n.shard.poll.source(host, n.hostReady)
	n.host.cuts = cuts
	if listener >= 0 {
		n.listener = first.poll.source(listener, n.listenerReady)
		if err := first.poll.add(n.listener, unix.EPOLLIN); err != nil {
			return err
		}
	}
	if err := n.watchHost(r.whenServing()); err != nil {
		if n.listener != nil {
			first.poll.remove(n.listener)
		}
		return err
	}
	if gateway >= 0 {
		n.addGateway(gateway, r.whenServing())
	}
	n.shard.devices++
	r.view.Lock()
	r.networks = append(r.networks, n)
	r.view.Unlock()
	return nil
}

// watchHost puts the host's device into its shard's set. Another shard than the
// first can not be waited for: if it fails, the network is left without a host.
func (n *network) watchHost(mask uint32) error {
	if n.shard == n.r.shards[0] {
		return n.shard.poll.add(n.host, mask)
	}
	n.shard.mail.post(func() {
		if err := n.shard.poll.add(n.host, mask); err != nil {
			n.loseHost(err)
		}
	})
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
	pol := newPolicy(cfg) // not on the first shard: it may be long
	return r.shards[0].mail.do(func() error {
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
		}
		n.update(pol, peers)
		return nil
	})
}

// Serve starts reading packets. Before, only the emperor's hand-overs are
// taken, so that every vassal has its addresses back before anybody can claim them.
func (r *Router) Serve() {
	_ = r.shards[0].mail.do(func() error { // a router that has ended serves nobody
		r.serve()
		return nil
	})
}

func (r *Router) serve() {
	if r.serving {
		return
	}
	r.serving = true
	for _, n := range r.networks {
		r.shards[0].tell(n.shard, func() {
			if !n.hostGone.Load() {
				n.shard.poll.want(n.host, unix.EPOLLIN)
			}
			if n.gateway != nil {
				n.shard.poll.want(n.gateway.conn, unix.EPOLLIN)
			}
		})
	}
	for _, p := range r.peers {
		r.attend(p)
	}
}

// Identified answers Events.Identify: conn is a connection of this vassal's;
// empty: foreign. It does not wait and may be called from within Identify.
func (r *Router) Identified(conn uint64, vassal string) {
	r.shards[0].mail.post(func() {
		if p := r.peers[conn]; p != nil && !p.known {
			p.known, p.vassal = true, vassal
			p.net.allow(p, p.net.policy.Load().reservations(vassal))
			p.publish()
			r.attend(p)
		}
	})
}

func (r *Router) hasDeadlines() bool { return len(r.halves) > 0 || len(r.paused) > 0 }

// tick looks after deadlines.
func (r *Router) tick() {
	if len(r.halves) > 0 {
		r.expireHalves()
	}
	if len(r.paused) > 0 {
		r.resumeListeners()
	}
}

func (r *Router) whenServing() uint32 {
	if r.serving {
		return unix.EPOLLIN
	}
	return 0
}

// Snapshot returns the counters of all networks. It does not disturb the shards.
func (r *Router) Snapshot() []NetworkStats {
	r.view.Lock()
	networks := slices.Clone(r.networks)
	peers, past := make([][]*peer, len(networks)), make([]Totals, len(networks))
	for i, n := range networks {
		peers[i], past[i] = slices.Clone(n.peers), n.past
	}
	r.view.Unlock()

	stats := make([]NetworkStats, len(networks))
	for i, n := range networks {
		pol := n.policy.Load()
		s := NetworkStats{Name: n.name, Peers: make([]PeerStats, len(peers[i])), Drops: n.drops.snapshot(), Totals: past[i]}
		s.In, s.Out = ruleStats(pol.chain[firewall.In]), ruleStats(pol.chain[firewall.Out])
		s.Routes, s.Gateway = ruleStats(pol.routes.chain), n.gateway.stats()
		for k, p := range peers[i] {
			s.Peers[k] = p.stats()
			s.Totals.add(s.Peers[k])
		}
		stats[i] = s
	}
	return stats
}
