package emperor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"fiefdom/vassal"
)

// member is a vassal as the loop knows it. Only the loop touches it.
type member struct {
	name string
	file iniFile

	state   State
	begins  bool // adopted while it was being started: it is stopped only until its ini has been read, or by an operator
	since   time.Time
	then    action // what to do when stopping is over
	removed bool   // its ini is gone

	adopted bool // from the emperor before, and its ini was not read again yet

	dethroned bool // its ini is another owner's word by now, who has nothing to do with what stops here

	outlawed bool // stopped by the policy: its ini says what comes next

	config   *vassal.Config // the newest good ini; nil: there is none
	err      string         // why it is invalid, or failed, or did not take its new ini
	passing  int            // starts in a row that failed for a want which passes and is not its own
	read     iniFile        // that was read last, good or bad
	unread   string         // why the newest ini could not be read yet
	again    *time.Timer    // when it is tried again; nil: it has been read since
	unfit    string         // what is wrong with the newest ini; empty: nothing
	blocked  bool           // it claims what is another's
	warnings []string

	backoff  backoff
	dates    dates
	errands  errands
	timer    *time.Timer // of the back-off, or of the mercy
	due      time.Time   // the end of the back-off
	launches int         // all starts, also failed ones
	starts   int         // starts that came to run
	renewals int         // reloads that the app did by itself
	readings int         // good inis that were taken without a reload by the app

	running *vassal.Config // what the generation was started with
	gen     *vassal.Generation
	begun   *vassal.Generation // it runs, and is not ready yet
	last    lastEnd
	notices *appNotices // of the generation; nil: it has no socket for them
	said    said        // by the generation
	form    string      // of the generation: with the same form it may reload itself
	options []byte      // the generation's newest, where it does not have them as arguments
	jail    *vassal.Jail
	key     string        // of the jail: it is kept as long as this does not change
	left    chan struct{} // closed when the jail before has left the router: its addresses are free
	lost    string        // why its device was lost while it started
	cancel  context.CancelFunc
	door    *door              // on demand: what wakes it; nil: it always runs
	wants   *doorSpec          // the door that its newest good ini asks for
	shut    <-chan struct{}    // closed when the door before has gone
	vigil   context.CancelFunc // ends the wait for somebody at the door
	open    *door              // the last that was seen open
	locked  bool               // its door could not be opened; err says why
	output  *output
	uid     int
	crew    *crew     // of the generation, if it has attached processes
	clock   cronClock // of their jobs

	limits   vassal.Resources // in force for the generation
	limiting bool             // a change of them is under way
	ruling   bool             // a change of its devices' rules is under way
	unruled  string           // why the last one failed
	settled  chan struct{}    // see settles; nil: nobody waits
	posting  bool             // a change of what it publishes is under way
	unposted string           // why the last one failed
	shortage shortage
}

func (e *Emperor) newMember(f iniFile) {
	e.Journal.own(f.name, f.owner.uid)
	e.vassals[f.name] = &member{name: f.name, file: f, state: Stopped, since: time.Now(), backoff: newBackoff(e.Config), uid: -1, dates: dates{born: time.Now()}}
}

// happen moves a vassal through the table.
func (e *Emperor) happen(v *member, ev event) {
	r, ok := table[v.state][ev]
	if !ok {
		e.Log.Debug("nothing to do", "vassal", v.name, "state", v.state, "event", ev)
		return
	}
	if r.then != nothing {
		v.then = r.then
	}
	e.enter(v, r.to)
	e.renamed = true
	defer e.mark(v)
	switch r.do {
	case launch:
		e.launch(v)
	case terminate:
		e.terminate(v)
	case renew:
		e.renew(v)
	case cancel:
		v.cancel()
	case wait:
		e.wait(v)
	case expand:
		e.queue(v.file)
		e.expandQueued()
	case forget:
		e.forget(v)
	case rest:
		e.rest(v)
	case doze:
		e.doze(v)
	case decide:
		e.decide(v)
	}
}

func (e *Emperor) enter(v *member, to State) {
	if v.state == to {
		return
	}
	if v.state == Backoff && v.timer != nil {
		v.timer.Stop()
	}
	if v.state == Sleeping {
		v.vigil()
	}
	e.Log.Debug("state", "vassal", v.name, "from", v.state, "to", to)
	v.state, v.since = to, time.Now()
}

// leaving says that the vassal ends for good: its ini is gone, or another's
// word by now. No operator's word brings back what it was.
func (v *member) leaving() bool { return v.state == Stopping && v.then == forget }

// decide does what was last asked for while the vassal was stopping.
func (e *Emperor) decide(v *member) {
	if v.timer != nil {
		v.timer.Stop()
	}
	switch v.then {
	case launch:
		e.enter(v, Starting)
		e.launch(v)
	case forget:
		e.forget(v)
	case doze:
		e.enter(v, Sleeping)
		e.doze(v)
	default:
		e.Log.Info("vassal stopped", "vassal", v.name)
		e.rest(v)
	}
}

// wait schedules the next start of a vassal that died or did not come up.
func (e *Emperor) wait(v *member) {
	var lived time.Duration
	if v.gen != nil {
		lived = time.Since(v.gen.Started)
	}
	delay := passingDelay()
	if v.passing == 0 {
		delay = v.backoff.died(lived, v.loyal(lived))
	}
	v.dates.died(&v.backoff, delay)
	v.gen, v.said = nil, said{}
	v.due = time.Now().Add(delay)
	if v.passing <= 1 && v.backoff.tells(time.Now()) {
		e.Log.Warn("vassal is down", "vassal", v.name, "reason", v.err, "lived", lived.Round(time.Millisecond), "next", delay.Round(time.Millisecond), "deaths", v.backoff.deaths)
	}
	if delay == 0 {
		e.happen(v, v.asDue())
		return
	}
	e.await(v, delay)
}

// launch starts the newest good ini, beside the loop. Without any (the ini
// was never good, or nobody has read it yet) the expander has to say first.
func (e *Emperor) launch(v *member) {
	if v.config == nil {
		e.enter(v, Stopped)
		e.queue(v.file)
		e.expandQueued()
		return
	}
	r, bad := e.resolve(v.config)
	if bad != nil {
		v.err, v.passing = bad.Error(), 0
		e.happen(v, failed)
		return
	}
	e.settleLeases()
	v.begins = false
	v.launches++
	v.running, v.uid = v.config, r.plan.UID
	job := startJob{e: e, name: v.name, launch: v.launches, r: r, output: v.output, door: v.door, config: v.config}
	if r.keep && v.jail != nil && v.key == r.key {
		job.jail, v.jail = v.jail, nil
	} else {
		e.closeJail(v)
	}
	job.left, job.after, v.key, v.lost = v.left, v.errands.done, r.key, ""
	v.form, v.options = r.form(), r.document
	v.limits, v.limiting = r.resources, false
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	began := time.Now()
	e.jobs.Go(func() {
		defer cancel()
		err := job.run(ctx)
		e.call(func() { e.launched(v, &job, err, began) })
	})
}

// launched takes the outcome of a start.
func (e *Emperor) launched(v *member, job *startJob, err error, began time.Time) {
	v.jail, v.output, v.begun, v.notices = job.jail, job.output, nil, job.notices
	if err != nil {
		if v.state != Stopping {
			v.err = v.startFailed(err)
			v.passing = passing(v.passing, err)
			v.last = lastEnd{v.err, time.Now()}
		}
		if v.jail != nil && !job.r.keep {
			e.closeJail(v)
		}
		e.happen(v, failed)
		return
	}
	v.gen, v.err, v.passing = job.gen, v.unfit, 0 // an ini that turned bad during the start is no less so
	v.starts++
	v.dates.ran()
	level := slog.LevelInfo
	if v.backoff.looping() {
		level = slog.LevelDebug // its deaths are told
	}
	e.Log.Log(context.Background(), level, "vassal running", "vassal", v.name, "pid", v.gen.PID, "addr", v.jail.Addresses(), "took", time.Since(began).Round(time.Millisecond))
	e.watchGeneration(v, job.gen, job.jail)
	// gofail: var startTaken struct{}
	e.listen(v, job.gen)
	e.enlist(v, job)
	if v.crew == nil {
		e.greet(v, job.gen.PID)
	}
	e.happen(v, started)
	e.muster(v)
	e.rerule(v)
	e.republish(v)
	if v.lost != "" {
		e.lost(v, v.lost, lostChecks)
	}
}

// watchGeneration waits for the app's end.
func (e *Emperor) watchGeneration(v *member, g *vassal.Generation, jail *vassal.Jail) {
	d := v.door
	unwatch := e.watchHealth(v, g, jail)
	e.jobs.Go(func() {
		exit := g.Wait()
		unwatch()
		content := d != nil && exit.Well() && !d.waiting()
		e.call(func() {
			exit.Err = errors.Join(exit.Err, e.Instance.forgetApp(v.name), e.Instance.forgetCgroup(v.name))
			if exit.Err != nil {
				e.Log.Error("cleaning up after a vassal", "vassal", v.name, "err", exit.Err)
			}
			if v.state != Stopping {
				v.err = v.reason(exit)
				v.last = lastEnd{v.err, time.Now()}
			}
			v.said.forgetPulse()
			if v.crew != nil {
				content = v.crew.content
			}
			e.disband(v)
			// gofail: var crewDisbanded struct{}
			e.mourn(v)
			if v.jail == jail && !e.keeps(v) {
				e.closeJail(v)
			}
			switch {
			case exile(g, exit):
				e.Log.Warn("vassal went into exile", "vassal", v.name)
				e.happen(v, exiled)
			case content && v.state == Running:
				v.err = ""
				v.backoff.clear()
				e.happen(v, finished)
			default:
				e.happen(v, exited)
			}
			if v.gen == g {
				v.gen, v.said = nil, said{}
			}
			e.mark(v)
		})
	})
}

// keeps says whether the vassal's jail serves the next generation too.
func (e *Emperor) keeps(v *member) bool {
	if v.config == nil {
		return false
	}
	r, bad := e.resolve(v.config)
	return bad == nil && r.keep && r.key == v.key
}

// terminate asks the app to stop and ends it when its mercy is over.
func (e *Emperor) terminate(v *member) {
	g := v.gen
	if g == nil {
		return
	}
	mercy := e.mercy(v.running)
	if v.dethroned || v.config == nil { // the name is another's by now, or the policy does not have it so
		mercy = min(mercy, vassal.DefaultMercy)
	}
	e.Log.Info("stopping vassal", "vassal", v.name, "pid", g.PID, "mercy", mercy)
	if v.crew != nil {
		e.endCrew(v, v.then == launch)
		// gofail: var crewTerminated struct{}
	} else {
		e.dismiss(v)
		// gofail: var appTerminated struct{}
	}
	v.timer = time.AfterFunc(mercy, func() {
		e.Log.Warn("vassal did not stop in time; killing it", "vassal", v.name, "mercy", mercy)
		g.Kill()
	})
}

// closeJail gives a jail back to the kernel, beside the loop.
func (e *Emperor) closeJail(v *member) {
	jail := v.jail
	v.jail = nil
	if jail == nil {
		return
	}
	e.letGo(jail)
	// gofail: var jailDropped struct{}
	left := make(chan struct{})
	v.left = left
	e.jobs.Go(func() {
		err := e.unpublish(jail)
		err = errors.Join(err, jail.Leave())
		close(left)
		// gofail: var jailLeft struct{}
		if err := errors.Join(err, jail.Close()); err != nil {
			e.Log.Warn("close jail", "vassal", jail.Name, "err", err)
		}
	})
}

// forget ends the record of a vassal. One whose file came back meanwhile
// begins anew.
func (e *Emperor) forget(v *member) {
	e.closeJail(v)
	e.shutDoor(v)
	e.endOutput(v.output, v.name, "")
	e.removeHosts(v.name)
	delete(e.vassals, v.name)
	v.settle()
	e.renamed = true
	if !e.ending {
		e.forgetRules(v.name)
	}
	e.mark(v)
	e.Log.Info("vassal gone", "vassal", v.name)
	// gofail: var vassalForgotten struct{}
	e.Journal.own(v.name, 0)
	if !v.removed && !e.ending {
		e.newMember(v.file)
		e.vassals[v.name].left = v.left // its addresses are those of the jail that goes
		e.vassals[v.name].errands = v.errands
		e.vassals[v.name].shut = v.shut
		e.queue(v.file)
		e.expandQueued()
	}
}
