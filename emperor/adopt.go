package emperor

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"fiefdom/internal/logfile"
	"fiefdom/vassal"
)

// Adopt takes orphans over. Their jails are known from then on, for the router
// that is started before Run, and the rest when Run begins.
func (e *Emperor) Adopt(orphans *Orphans) {
	if orphans.Empty() {
		return
	}
	e.orphans = orphans
	for _, o := range orphans.all {
		if o.jail != nil && o.jail.Inode != 0 {
			e.jails.Store(o.jail.Inode, o.jail)
		}
	}
	e.adoptPorts(orphans)
}

// adopt makes vassals of the orphans, as they were. Their inis are read once
// more, since what they include may have changed.
func (e *Emperor) adopt() {
	orphans := e.orphans
	if e.orphans = nil; orphans == nil {
		return
	}
	orphans.discard()
	// gofail: var orphansDiscarded struct{}
	for _, key := range orphans.vain {
		e.drop(key)
	}
	for _, o := range orphans.all {
		e.keepPorts(o.note.Name)
	}
	for _, o := range orphans.all {
		e.leaseAgain(o)
	}
	for _, o := range orphans.all {
		_ = e.claims.Add(o.note.Config) // no two of them had the same address
		e.vassals[o.note.Name] = e.memberOf(&o.note)
	}
	for _, o := range orphans.all {
		e.restore(e.vassals[o.note.Name], o)
		// gofail: var vassalRestored struct{}
	}
	e.enforcePolicy()
	e.settleLeases()
	e.reserve()
}

// leaseAgain leases to an orphan what it runs with: the emperor before may have
// been unable to save it.
func (e *Emperor) leaseAgain(o *orphan) {
	n := &o.note
	if g := n.Generation; g != nil && n.Running.UID == nil {
		e.Leases.renewUID(n.Name, g.Plan.UID)
	}
	if g := n.Generation; g != nil && g.Plan.Users != nil {
		e.Leases.renewRange(n.Name, g.Plan.Users.First)
	}
	if o.jail == nil {
		return
	}
	for _, link := range o.jail.Links() {
		for _, a := range link.Addresses {
			if e.isPool(a.Masked()) {
				e.Leases.renewAddress(a.Masked(), n.Name, a.Addr())
			}
		}
	}
}

func (e *Emperor) isPool(p netip.Prefix) bool {
	return slices.ContainsFunc(e.Networks, func(n Network) bool {
		return slices.ContainsFunc(n.Addresses, func(a netip.Prefix) bool { return a.Masked() == p })
	})
}

// memberOf is a vassal as the emperor before knew it, without its processes.
func (e *Emperor) memberOf(n *note) *member {
	v := &member{
		name: n.Name, file: n.File.file(n.Name), state: Stopped, since: n.Since, dethroned: n.Dethroned, adopted: true,
		config: n.Config, running: n.Running, err: n.Error, warnings: n.Warnings, backoff: newBackoff(e.Config),
		launches: n.Launches, starts: n.Starts, renewals: n.Renewals, readings: n.Readings, options: n.Options, uid: n.UID,
		dates: dates{n.Dates.Born, n.Dates.FirstRun, n.Dates.LastRun, n.Dates.FirstDeath, n.Dates.LastDeath, n.Dates.Delay},
		clock: cronClock{n.Cron[0], n.Cron[1]}, last: lastEnd{n.LastEnd, n.LastEndAt}, shortage: shortage{killed: n.OOMKills},
	}
	v.backoff.deaths, v.errands.pid = n.Deaths, n.HookPID
	if !v.dethroned {
		e.Journal.own(v.name, v.file.owner.uid)
	}
	e.mark(v)
	return v
}

// restore gives a vassal back what it has, and goes on where the emperor before
// was killed.
func (e *Emperor) restore(v *member, o *orphan) {
	n := &o.note
	e.queue(v.file)
	e.restoreDoor(v, o.door)
	e.restoreOutput(v, o)
	if v.jail = o.jail; v.jail != nil {
		v.key = jailID(v.jail.Inode != 0, v.jail.Lone, v.jail.Links())
		e.bridgeAgain(v)
	}
	v.gen = o.gen
	switch {
	case v.gen != nil:
		e.restoreGeneration(v, o)
		if n.State == Stopping {
			e.happen(v, n.event())
		}
	case n.State == Backoff:
		v.state = Backoff
		e.await(v, n.left(n.Wait))
	case n.State == Sleeping && v.door != nil:
		v.state = Sleeping
		e.doze(v)
	case n.State == Stopped || n.State == Stopping && n.Then == rest:
	default:
		v.begins = true // it was being started, or has nothing that could go on
	}
}

func (e *Emperor) restoreGeneration(v *member, o *orphan) {
	n, g := &o.note, v.gen
	was := resolved{plan: n.Generation.Plan, dir: n.Generation.Dir}
	if door, err := parseAddress(n.DoorAt, "/"); err == nil {
		was.door = &doorSpec{address: door}
	}
	v.form, v.state = was.form(), Running
	v.said = said{
		ready: n.Said.Ready, accepting: n.Said.Accepting, loyal: n.Said.Loyal, reloading: n.Said.Reloading, begged: n.Said.Begged, served: n.Said.Served,
		readyAt: n.Said.ReadyAt, acceptedAt: n.Said.AcceptedAt, loyalAt: n.Said.LoyalAt, beatAt: n.Said.BeatAt,
	}
	e.restoreLimits(v, n)
	if o.notify != nil {
		v.notices = newNotices(o.notify)
		e.hearNotices(v.name, g, n.Generation.Plan.UID, v.notices)
	}
	e.watchGeneration(v, g, v.jail)
	e.restoreCrew(v, o, &was)
	e.Log.Info("vassal adopted", "vassal", v.name, "pid", v.status().PID, "addr", v.jail.Addresses())
	if v.said.reloading {
		e.expectReady(v)
	}
	if n.Said.Beats {
		e.beat(v)
	}
	for _, b := range o.heard {
		if v.state == Running && slices.Contains(notices, vassal.Notice(b)) {
			e.heard(v, vassal.Notice(b))
		}
	}
	e.hear(v, g)
}

// restoreDoor goes on with a door that is open. One that its vassal has no use
// for is closed.
func (e *Emperor) restoreDoor(v *member, d *door) {
	r, bad := e.resolve(v.config)
	switch {
	case bad != nil && d != nil: // until a good ini says otherwise, as ever
		v.door, v.wants = d, &doorSpec{address: d.address, as: d.as}
		e.keepDoor(v.name, d)
		return
	case bad != nil || r.door == nil:
	case d != nil && d.is(r.door):
		v.door = d
		e.keepDoor(v.name, d)
		e.setDoor(v, r.door) // its rights
		return
	default:
		if d != nil {
			v.shut = d.gone
		}
		v.wants = r.door
		e.hang(v, r.door)
	}
	if d == nil {
		return
	}
	e.keepDoor(v.name, d)
	e.jobs.Go(func() {
		if err := d.close(); err != nil {
			e.Log.Warn("close the socket", "vassal", v.name, "err", err)
		}
	})
}

// restoreOutput reads on what the vassal writes, once it is known where to.
func (e *Emperor) restoreOutput(v *member, o *orphan) {
	defer closeFile(o.pipe)
	path := e.Instance.Path(outFolder, safeName(v.name))
	if _, err := os.Lstat(path); err == nil {
		if v.output, err = makeOutput(v.name, path, e.Output); err != nil {
			e.Log.Warn("output", "vassal", v.name, "err", err)
		}
	}
	switch {
	case v.output == nil:
		closeFile(o.wrote)
	case e.Vault != nil:
		v.output.outlive(o.wrote, e.Log)
	}
	if v.output == nil || o.gen == nil {
		closeFile(o.log)
	} else {
		v.output.setLogs(e, e.restoreLog(o), &o.note.Generation.Plan)
	}
	if v.output != nil {
		go v.output.read()
	}
}

// restoreLog opens the log of logto in its folder; nil: there is none.
func (e *Emperor) restoreLog(o *orphan) *logfile.File {
	if o.log == nil {
		return nil
	}
	plan := &o.note.Generation.Plan
	f, err := plan.OpenLogIn(o.log)
	if err != nil {
		e.Log.Warn("log", "vassal", o.note.Name, "file", plan.LogTo, "err", err)
	}
	return f
}

// restoreLimits goes on with what is in force for a generation.
func (e *Emperor) restoreLimits(v *member, n *note) {
	v.limits = n.Limits
	if e.Controllers == nil {
		return
	}
	budget, err := e.Controllers.ResumeBudget(generationName(v.name, n.Launches), v.gen.Cgroup(), n.Limits, func(killed uint64) { e.outOfMemory(v.name, killed) })
	if err != nil {
		e.Log.Warn("limits stay as they are, but kills for memory are not told", "vassal", v.name, "err", err)
	}
	v.gen.Resume(budget)
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// bridgeAgain gives the devices of foreign routers bridges of this emperor, and
// those in kernel's bridges to who keeps the rules there.
func (e *Emperor) bridgeAgain(v *member) {
	jail := v.jail
	if !slices.ContainsFunc(jail.Links(), func(l vassal.Link) bool { return l.Foreign || l.Bridge != "" }) {
		return
	}
	jail.KeptBy(e.plugger())
	e.jobs.Go(func() {
		err := jail.Plug(e.plugger())
		if err == nil {
			err = jail.Bridge(e.Bridge, func() { e.keepJail(jail) }, func(why string) { e.Lost(v.name, why) })
		}
		if err == nil {
			return
		}
		e.call(func() {
			if v.jail == jail {
				e.Log.Error("no bridge; starting the vassal in a new jail", "vassal", v.name, "err", err)
				v.key = ""
			}
			if v.jail == jail && v.gen != nil {
				v.gen.Kill()
			}
		})
	})
}

// unchanged says whether a vassal that was adopted goes on as it is, now that
// its ini has been read. That is asked once.
func (e *Emperor) unchanged(v *member) bool {
	if !v.adopted {
		return false
	}
	v.adopted = false
	if v.state != Running {
		return !v.begins
	}
	r, bad := e.resolve(v.config)
	if bad != nil || r.key != v.key || r.form() != v.form || !bytes.Equal(r.document, v.options) {
		return false
	}
	e.relimit(v) // where the emperor's defaults are others by now
	return true
}

// jailID tells jails apart. Rules are no part of it where they can be changed: a
// foreign router is told them once.
func jailID(own, lone bool, links []vassal.Link) string {
	links = slices.Clone(links)
	for i := range links {
		links[i].Open = false
		if !links[i].Foreign {
			links[i].Rules = nil
		}
	}
	return fmt.Sprint(own, lone, links)
}
