package emperor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Network is one of the emperor's networks as vassals see it.
type Network struct {
	Device    string         // the router's
	Socket    string         // that the router listens on
	Addresses []netip.Prefix // the router's; empty: not native
	AttachAll bool
	Resolv    string // the resolv.conf of its vassals; empty: the host's
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
	Output   io.Writer // vassals' lines, where no logto says otherwise
	Networks []Network
	Leases   *Leases
	Cgroup   vassal.Cgroup // the instance's; empty where there is no v2 tree

	RouterUID int // that no vassal may have; 0: there is no router

	Reserve func(network string, reserved map[netip.Addr]string) error // tells the router whose the addresses are
	Traffic func(ctx context.Context) (map[string]Traffic, error)

	made    sync.Once
	calls   chan func() // to the loop
	stopped chan struct{}

	// The loop's own.
	vassals   map[string]*member
	claims    Claims
	expanding map[owner]bool
	queued    map[owner][]iniFile
	complaint string // the last scan's, said once
	ending    bool
	slots     chan struct{}
	expand    func(owner, []iniFile) []expansion // by an expander process
	noExpand  context.CancelFunc                 // at the end no ini is worth waiting for

	jails sync.Map // inode of a namespace → *vassal.Jail, for Identify
	jobs  sync.WaitGroup
}

// Run starts and keeps the vassals until ctx is done, then stops them all. It
// returns when nothing of them is left.
func (e *Emperor) Run(ctx context.Context) error {
	e.make()
	e.vassals = map[string]*member{}
	e.expanding = map[owner]bool{}
	e.queued = map[owner][]iniFile{}
	e.slots = make(chan struct{}, startSlots)
	slots := make(chan struct{}, expandSlots)
	expanding, stop := context.WithCancel(context.Background())
	defer stop()
	e.noExpand = stop
	expanders := expanders{cgroup: e.Cgroup}
	e.expand = func(o owner, files []iniFile) []expansion {
		if release, err := slot(expanding, slots); err == nil {
			defer release()
		}
		return expanders.expandAll(expanding, o, files)
	}
	if err := os.MkdirAll(e.Instance.Path("out"), 0o700); err != nil {
		return err
	}
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	e.jobs.Go(func() {
		watch(watching, e.Config.Monitors, e.Log, func() { e.call(e.rescan) })
	})
	e.rescan()
	e.loop(ctx)
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
	}
}

// make makes what the loop and its callers share. The API and the router's
// keeper may call before Run does.
func (e *Emperor) make() {
	e.made.Do(func() {
		e.calls = make(chan func(), 64)
		e.stopped = make(chan struct{})
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

// rescan compares the inis with what the loop knows of them.
func (e *Emperor) rescan() {
	if e.ending {
		return
	}
	seen := scan(e.Config.Monitors)
	if err := errors.Join(seen.errs...); err != nil && err.Error() != e.complaint {
		e.complaint = err.Error()
		e.Log.Warn("scan", "err", err)
	} else if err == nil {
		e.complaint = ""
	}
	freed := false
	for _, v := range e.vassals {
		if !v.removed && seen.missing(v.file) {
			e.remove(v)
			freed = true
		}
	}
	if freed {
		e.reserve()
	}
	for _, name := range seen.order {
		f := seen.found[name]
		v := e.vassals[name]
		switch {
		case v == nil:
			e.newMember(f)
			e.Log.Info("vassal found", "vassal", name, "file", f.path)
			e.queue(f)
		case v.removed || v.file != f:
			if !v.removed {
				e.Log.Info("ini changed", "vassal", name, "file", f.path)
			}
			v.removed = false
			v.file = f
			e.queue(f)
		}
	}
	e.expandQueued()
}

func (e *Emperor) remove(v *member) {
	e.Log.Info("ini removed", "vassal", v.name, "file", v.file.path)
	v.removed = true
	e.claims.Remove(v.name)
	e.happen(v, gone)
}

// Reload reads every ini again and restarts its vassal, as SIGHUP does.
func (e *Emperor) Reload() {
	e.call(func() {
		e.Log.Info("reloading all vassals")
		for _, v := range e.vassals {
			e.queue(v.file)
		}
		e.expandQueued()
	})
}

// queue has a file expanded; one that waits already is taken as it is now.
func (e *Emperor) queue(f iniFile) {
	waiting := e.queued[f.owner]
	if i := slices.IndexFunc(waiting, func(w iniFile) bool { return w.name == f.name }); i >= 0 {
		waiting[i] = f
		return
	}
	e.queued[f.owner] = append(waiting, f)
}

// expandQueued starts an expander for each owner that has files waiting and
// none running.
func (e *Emperor) expandQueued() {
	for o, files := range e.queued {
		if e.expanding[o] || e.ending {
			continue
		}
		batch := files[:min(len(files), expandBatch)]
		if e.queued[o] = files[len(batch):]; len(e.queued[o]) == 0 {
			delete(e.queued, o)
		}
		e.expanding[o] = true
		e.jobs.Go(func() {
			got := e.expand(o, batch)
			e.call(func() {
				delete(e.expanding, o)
				e.expanded(got)
				e.expandQueued()
			})
		})
	}
}

// expanded takes the expander's word about some files. All claims are made
// before anything is leased, and the router is told before the first of their
// vassals starts.
func (e *Emperor) expanded(got []expansion) {
	var current []*expansion
	for i := range got {
		x := &got[i]
		v := e.vassals[x.Name]
		if v == nil || v.removed || v.file != x.file || e.ending {
			continue // overtaken by another scan: another file, or another owner, whose word this is not
		}
		x.Errors = append(x.Errors, e.claim(v, x)...)
		current = append(current, x)
	}
	var fine []*member
	for _, x := range current {
		v := e.vassals[x.Name]
		if !x.Errors.Failed() {
			if _, err := e.resolve(x.Config); err != nil {
				x.Errors = append(x.Errors, *err)
			}
		}
		v.warnings = nil
		for _, err := range x.Errors {
			if err.Warning {
				v.warnings = append(v.warnings, err.Error())
				e.Log.Warn(err.Error(), "vassal", v.name)
			}
		}
		if x.Errors.Failed() {
			v.err = failures(x.Errors)
			e.Log.Error("bad ini", "vassal", v.name, "err", v.err)
			e.happen(v, bad)
			continue
		}
		if len(x.Config.Needless) > 0 {
			e.Log.Info("options that do nothing for a command", "vassal", v.name, "options", strings.Join(x.Config.Needless, " "))
		}
		v.config, v.err = x.Config, ""
		v.backoff.clear()
		fine = append(fine, v)
	}
	e.settleLeases()
	e.reserve()
	for _, v := range fine {
		e.happen(v, good)
	}
}

// failures are the errors, without the warnings, one a line.
func failures(errs ini.Errors) string {
	var only ini.Errors
	for _, err := range errs {
		if !err.Warning {
			only = append(only, err)
		}
	}
	return only.Error()
}

// reserve tells the router whose the declared and leased addresses are.
func (e *Emperor) reserve() {
	for _, n := range e.Networks {
		if e.Reserve == nil {
			return
		}
		reserved := map[netip.Addr]string{}
		for _, p := range n.Addresses {
			for name, a := range e.Leases.file.Addresses[p.Masked()] {
				if _, ok := e.vassals[name]; ok {
					reserved[a] = name
				}
			}
		}
		for a, c := range e.claims.byAddr {
			reserved[a] = c.vassal
		}
		if err := e.Reserve(n.Device, reserved); err != nil {
			e.Log.Error("reserve addresses", "network", n.Device, "err", err)
		}
	}
}

// Registered takes the router's word that a vassal has an address.
func (e *Emperor) Registered(network, name string, addr netip.Addr) {
	e.jails.Range(func(_, j any) bool {
		jail := j.(*vassal.Jail)
		if jail.Name == name {
			jail.Registered(network, addr)
		}
		return true
	})
}

// Rejoin hands the devices of all jails to a new router.
func (e *Emperor) Rejoin() error {
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	e.jails.Range(func(_, j any) bool {
		jail := j.(*vassal.Jail)
		wg.Go(func() {
			if err := jail.HandOver(); err != nil {
				go e.Lost(jail.Name, err.Error()) // the loop may be waiting for the router
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
		return true
	})
	wg.Wait()
	return errors.Join(errs...)
}

// Identify says whose process a pidfd is, by its network namespace; "" when
// it is nobody's. The pidfd stays the caller's.
func (e *Emperor) Identify(pidfd *os.File) string {
	inode, err := vassal.NamespaceOf(pidfd)
	if err != nil {
		e.Log.Debug("identify", "err", err)
		return ""
	}
	if j, ok := e.jails.Load(inode); ok {
		return j.(*vassal.Jail).Name
	}
	return ""
}

// claim checks an ini against the instance's policy, and claims the addresses
// that it declares.
func (e *Emperor) claim(v *member, x *expansion) ini.Errors {
	var errs ini.Errors
	switch {
	case x.Errors.Failed():
		return nil
	case x.Config == nil:
		return ini.Errors{{Pos: ini.Pos{File: v.file.path}, Message: "the expander said nothing about it"}}
	}
	if e.Config.Tyrant {
		errs = append(errs, tyrant(x.Config, v.file.owner)...)
	}
	errs = append(errs, e.leasedToOthers(x.Config)...)
	if errs.Failed() {
		return errs
	}
	return append(errs, e.claims.Add(x.Config)...)
}

// leasedToOthers reports declared addresses that another vassal of now has on
// lease: its address stays with its name, also against a neighbour's ini.
func (e *Emperor) leasedToOthers(c *vassal.Config) ini.Errors {
	var errs ini.Errors
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			name, ok := e.Leases.Holder(a)
			if other := e.vassals[name]; ok && name != c.Name && other != nil && !other.removed && e.leases(other) {
				errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("address %s is leased to vassal %q; choose another", a, name)})
			}
		}
	}
	return errs
}

// leases says whether a vassal lives on leased addresses, as far as is known.
func (e *Emperor) leases(v *member) bool {
	if v.config == nil || len(v.config.Devices) == 0 {
		return true
	}
	return slices.ContainsFunc(v.config.Devices, func(d vassal.DeviceSpec) bool { return d.Auto })
}

// tyrant refuses what would give an owner rights that are not his, and makes
// him the one who the vassal runs as.
func tyrant(c *vassal.Config, o owner) ini.Errors {
	var errs ini.Errors
	deny := func(pos ini.Pos, what string) {
		errs = append(errs, ini.Error{Pos: pos, Message: what + " in tyrant mode; the emperor's operator would have to allow it"})
	}
	file := ini.Pos{File: c.File}
	if o.uid == 0 || o.gid == 0 {
		deny(file, fmt.Sprintf("the ini belongs to %d:%d (root), which may not run a vassal", o.uid, o.gid))
	}
	for _, h := range c.Hooks {
		deny(h.Pos, "hooks are not allowed")
	}
	if c.CapSet {
		deny(file, "cap is not allowed")
	}
	if c.UID != nil && c.UID.ID != int(o.uid) {
		deny(c.UID.Pos, fmt.Sprintf("uid %s is not the ini's owner (%d)", c.UID.Name, o.uid))
	}
	if c.GID != nil && c.GID.ID != int(o.gid) {
		deny(c.GID.Pos, fmt.Sprintf("gid %s is not the ini's group (%d)", c.GID.Name, o.gid))
	}
	for _, g := range c.AddGID {
		deny(g.Pos, "add-gid is not allowed")
	}
	if c.Chroot != "" {
		deny(file, "chroot is not allowed")
	}
	c.UID = &vassal.Identity{Name: strconv.Itoa(int(o.uid)), ID: int(o.uid), Main: int(o.gid)}
	return errs
}
