package emperor

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// Network is one of the emperor's networks as vassals see it.
type Network struct {
	Device    string         // the router's
	Socket    string         // that the router listens on
	Addresses []netip.Prefix // the router's; empty: not native
	Gateways  []netip.Addr   // default routes; empty: the router's addresses
	AttachAll bool
	Resolv    string           // the resolv.conf of its vassals; empty: the host's
	Names     bool             // a responder answers at the router's addresses
	Gateway   bool             // it has a UDP gateway
	FarEnds   []netip.AddrPort // that devices' own rules may route to

	Isolated bool                                // after chain out
	Shadowed func(*vassal.DeviceSpec) ini.Errors // warns of a device's rules that the network's leave nothing of; for Check

	Written // as it was read last
}

// Written is what is read again of a network in the emperor's ini while it runs.
type Written struct {
	Pos   ini.Pos       // where the network is
	Rules []vassal.Rule // of the chains
}

// Traffic is what the router counted for a vassal, seen from the vassal.
type Traffic struct {
	RxBytes, TxBytes uint64
	Drops            map[string]uint64 // packets, by reason
}

// Emperor runs the vassals of one instance. Set the exported fields, then Run.
type Emperor struct {
	Config   *Config
	Instance *Instance
	Log      *slog.Logger
	Output   io.Writer // vassals' lines, where no logto says otherwise; it may block
	Networks []Network
	Leases   *Leases
	Journal  *Journal      // nil: none
	Cgroup   vassal.Cgroup // the instance's; empty where there is no v2 tree

	Controllers *vassal.Controllers // of limits; nil: there are none

	RouterUID int // that no vassal may have; 0: there is no router
	BridgeUID int // the same of bridges

	ResponderUID int // the same of the responder

	Vault  *vault.Vault   // keeps what the next emperor would need; nil: nothing is kept
	Bridge vassal.Bridger // joins devices with foreign routers
	Kernel *KernelSide    // the host's side of kernel's bridges; nil: there is nobody who makes it

	Version string                                               // of the program
	Upgrade func(ctx context.Context) (become func(), err error) // asks whether another program can take over, and has it do so

	Syslog func(vassal string) io.Writer // takes lines of a vassal whose ini says log-syslog, and may block; nil: there is none

	Reserve func(network string, reserved map[netip.Addr]string) error // tells the router whose the addresses are
	Traffic func(ctx context.Context) (map[string]Traffic, error)
	Explain func(ctx context.Context, vassal string, query url.Values, sees Sees) (any, error) // asks the router about a packet
	Drops   func(ctx context.Context, vassal string) (any, error)                              // asks the router for examples of drops
	Capture func(ctx context.Context, vassal string, query url.Values) (net.Conn, error)       // has the router copy packets

	Named func(all []Named, whole bool) // takes who there is, whenever that has changed, and does not wait; nil: nobody asks
	Hosts func(keep *bool) (any, error) // tells the block for /etc/hosts; keeps it there from now on, or takes it away

	Publish func(all []Published) error    // has the host, and the router, lead these ports to vassals, and no others
	Closed  func(to []netip.Addr) []string // what the host's own firewall keeps others from, of what leads to these addresses

	SetChains func(network string, now Written) error           // tells the router
	Nameless  func() string                                     // why vassals' questions for names are not answered; "" where they are
	ReadRules func() (map[string]Written, error)                // reads the emperor's ini again, by network
	Counted   func(ctx context.Context) ([]CountedChain, error) // asks the router

	made    sync.Once
	calls   chan func() // to the loop
	stopped chan struct{}
	visits  chan struct{} // starts of processes beside vassals' own
	visited atomic.Int64  // how many there were

	// The loop's own.
	vassals   map[string]*member
	claims    Claims
	expanding map[owner]bool
	queued    map[owner][]iniFile
	complaint string // the last scan's, said once
	ending    bool
	checking  bool // the files of doors, beside the loop
	unrest    bool // inis that somebody was writing are looked at again soon
	slots     chan struct{}
	files     fileBudget
	expand    func(owner, []iniFile) []expansion // by an expander process
	noExpand  context.CancelFunc                 // at the end no ini is worth waiting for

	watching       atomic.Int32 // who follows the events, of root's
	othersWatching atomic.Int32 // the same, of all others'

	orphans *Orphans            // of the emperor before, until Run begins
	marked  map[string]struct{} // vassals that the vault is to be told of

	keeping sync.Mutex // of jails in the vault
	unkept  unkept
	jails   sync.Map // inode of a namespace → *vassal.Jail, for Identify
	jobs    sync.WaitGroup

	renamed bool // Named is to be told; the loop's own

	nameHolders map[string]string // who has each name in DNS
	nameless    map[string]bool   // vassals that have none, since another has it
	naming      bool              // and will be, soon
	ports       publications

	edits  map[ruleOwner]unsaved // the loop's own
	ruling sync.Mutex            // one order about rules at a time
}

// Run starts and keeps the vassals until ctx is done, then stops them all. It
// returns when nothing of them is left.
func (e *Emperor) Run(ctx context.Context) error {
	e.make()
	e.vassals = map[string]*member{}
	e.expanding = map[owner]bool{}
	e.queued = map[owner][]iniFile{}
	e.marked = map[string]struct{}{}
	e.slots = make(chan struct{}, startSlots)
	slots := make(chan struct{}, expandSlots)
	expanding, stop := context.WithCancel(context.Background())
	defer stop()
	e.noExpand = stop
	expanders := expanders{cgroup: e.Cgroup, common: e.Config.Common}
	expanders.common.Environ = vassalEnviron(os.Environ())
	e.expand = func(o owner, files []iniFile) []expansion {
		if release, err := slot(expanding, slots); err == nil {
			defer release()
		}
		got := expanders.expandAll(expanding, o, files)
		e.findDoors(expanding, got)
		return got
	}
	if err := os.MkdirAll(e.Instance.Path(outFolder), 0o700); err != nil {
		return err
	}
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	e.jobs.Go(func() {
		e.Config.watch(watching, e.Log, func() { e.call(e.rescan) })
	})
	e.adopt()
	e.renamed = true // also where nobody is
	e.rescan()
	e.flush()
	e.loop(ctx)
	if e.Leases.unsaved {
		e.saveLeases()
	}
	unwatch()
	close(e.stopped)
	e.jobs.Wait()
	return nil
}

// loop runs the calls one by one; it owns the vassals.
func (e *Emperor) loop(ctx context.Context) {
	rescan := time.NewTicker(e.Config.Freq)
	defer rescan.Stop()
	done := ctx.Done()
	for !e.ending || len(e.vassals) > 0 || len(e.expanding) > 0 {
		select {
		case f := <-e.calls:
			f()
		case <-rescan.C:
			e.rescan()
		case <-done:
			done = nil
			e.end()
		}
		e.flush()
	}
}

// make makes what the loop and its callers share. The API and the router's
// keeper may call before Run does.
func (e *Emperor) make() {
	e.made.Do(func() {
		e.calls = make(chan func(), 64)
		e.stopped = make(chan struct{})
		e.visits = make(chan struct{}, visitSlots)
	})
}

// call has the loop run f; after the loop's end it does nothing.
func (e *Emperor) call(f func()) {
	e.make()
	select {
	case e.calls <- f:
	case <-e.stopped:
	}
}

// end stops every vassal for good.
func (e *Emperor) end() {
	e.ending = true
	e.noExpand()
	e.Log.Info("stopping all vassals", "count", len(e.vassals))
	for _, v := range e.vassals {
		e.happen(v, gone)
	}
}
