package emperor

import (
	"context"
	"errors"
	"slices"
	"time"

	"fiefdom/vassal"
)

// crew is the processes of a generation that has attached ones: they join it
// one by one, each with its own restarts. The vassal runs as long as the
// generation; its command is one of the crew.
type crew struct {
	ground    *vassal.Generation
	r         *resolved
	door      *door // that its command, and daemons that ask for it, have as stdin; nil: none
	processes []*process
	ending    bool          // every process was told to stop
	over      chan struct{} // closed when the generation has ended
	reason    string        // why the crew ends by itself
	content   bool          // it ends because nobody is at the door
	told      bool          // hooks as-emperor know of it
	minute    *time.Timer   // until the jobs of cron are looked at; nil: there are none
	mercy     *time.Timer   // of a crew that ends by itself
}

// process is one of a crew: the command, a daemon, or a job of cron.
type process struct {
	spec    *vassal.Attached // nil: the vassal's command
	state   State
	since   time.Time
	err     string
	backoff backoff
	passing int         // starts in a row that failed for a want which passes and is not its own
	timer   *time.Timer // of the back-off
	due     time.Time   // the end of the back-off
	started int         // times it was started
	ran     int         // times it came to run
	runs    []*run      // a job that is not unique may have several
	output  *output     // nil: the vassal's own, or none yet
}

// run is one start of a process.
type run struct {
	id     string             // among the vassal's
	gen    *vassal.Generation // nil: it is starting
	pid    int
	cancel context.CancelFunc
	timer  *time.Timer // until it is killed
	again  bool        // it was told to stop in order to start again
}

// cronIdle is the state of a job between its runs.
const cronIdle State = "sleeping"

// maxRuns is how many runs of one job there may be at a time.
const maxRuns = 16

func (p *process) name() string {
	if p.spec == nil {
		return "command"
	}
	return p.spec.Name
}

func (p *process) cron() *vassal.Cron {
	if p.spec == nil {
		return nil
	}
	return p.spec.Cron
}

func (p *process) enter(s State) {
	if p.state != s {
		p.state, p.since = s, time.Now()
	}
}

// enlist notes the crew of a new generation.
func (e *Emperor) enlist(v *member, job *startJob) {
	if len(v.running.Attached) > 0 {
		v.crew = &crew{ground: v.gen, r: job.r, door: job.door, over: make(chan struct{})}
	}
}

// muster starts the crew, unless it was told to end meanwhile.
func (e *Emperor) muster(v *member) {
	c := v.crew
	if c == nil || c.ending {
		return
	}
	crons := e.recruit(v)
	for _, p := range c.processes {
		if p.cron() != nil {
			p.enter(cronIdle)
			continue
		}
		e.startProcess(v, p)
		e.watchTouches(v, p)
	}
	if crons {
		e.runCrons(v)
	}
}

// recruit lists the processes of a crew, and says whether jobs are among them.
func (e *Emperor) recruit(v *member) (crons bool) {
	c := v.crew
	if len(v.running.Command) > 0 {
		c.processes = append(c.processes, &process{backoff: newBackoff(e.Config)})
	}
	for i := range v.running.Attached {
		p := &process{spec: &v.running.Attached[i], backoff: newBackoff(e.Config)}
		if p.spec.MaxThrottle > 0 {
			p.backoff.limit(p.spec.MaxThrottle)
		}
		crons = crons || p.cron() != nil
		c.processes = append(c.processes, p)
	}
	return crons
}

// startProcess starts a process beside the loop, and waits for its end there.
func (e *Emperor) startProcess(v *member, p *process) {
	c := v.crew
	ctx, cancel := context.WithCancel(context.Background())
	n := &run{cancel: cancel}
	p.runs = append(p.runs, n)
	p.started++
	job := crewJob{e: e, vassal: v.name, crew: c, spec: p.spec, command: v.running.Args(), number: p.started, output: p.output, above: v.output}
	n.id = job.id()
	job.followed = func(pid int) { e.follow(v, p, n, pid) }
	p.enter(Starting)
	e.jobs.Go(func() {
		defer cancel()
		gen, err := job.run(ctx)
		e.call(func() { e.processStarted(v, c, p, n, &job, gen, err) })
		if err == nil {
			e.awaitRun(v, c, p, n, gen)
		}
	})
}

// follow notes who took over from a process that went into the background.
func (e *Emperor) follow(v *member, p *process, n *run, pid int) {
	e.call(func() {
		n.pid = pid
		e.keepRun(v, p, n)
	})
}

// awaitRun waits for the end of a run, beside the loop.
func (e *Emperor) awaitRun(v *member, c *crew, p *process, n *run, gen *vassal.Generation) {
	exit := gen.Wait()
	c.ground.CountKilled()
	content := c.door != nil && exit.Err == nil && exit.Well() && !c.door.waiting()
	exit.Err = errors.Join(exit.Err, e.Instance.forgetApp(v.name+"/"+n.id))
	e.call(func() { e.processEnded(v, c, p, n, gen.Started, exit, content) })
}

func (e *Emperor) processStarted(v *member, c *crew, p *process, n *run, job *crewJob, gen *vassal.Generation, err error) {
	p.output = job.output
	if v.crew != c {
		e.closeOutput(v, p)
	}
	if err != nil {
		e.processEnded(v, c, p, n, time.Time{}, vassal.Exit{Err: err}, false)
		return
	}
	// gofail: var processStarted struct{}
	n.gen = gen
	if n.pid == 0 {
		n.pid = gen.PID
	}
	p.ran++
	p.enter(Running)
	e.keepRun(v, p, n)
	e.mark(v)
	if p.cron() == nil {
		p.err = ""
	}
	e.Log.Info("process running", "vassal", v.name, "process", p.name(), "pid", gen.PID)
	if first := p.spec == nil || len(v.running.Command) == 0; first && !c.told && v.crew == c {
		c.told = true
		e.greet(v, gen.PID)
	}
	e.limitRun(v, p, n)
	if c.ending || n.again {
		e.askToStop(v, p, n, false)
	}
}

// limitRun kills a job that takes too long.
func (e *Emperor) limitRun(v *member, p *process, n *run) {
	cron, gen := p.cron(), n.gen
	if cron == nil || cron.Timeout == 0 {
		return
	}
	n.timer = time.AfterFunc(cron.Timeout-time.Since(gen.Started), func() {
		e.Log.Warn("job took too long; killing it", "vassal", v.name, "process", p.name(), "timeout", cron.Timeout)
		gen.Kill()
	})
}

// processEnded takes the end of a run, or of the attempt to start one. It is
// content if it ended well, and nobody was at the vassal's door.
func (e *Emperor) processEnded(v *member, c *crew, p *process, n *run, began time.Time, exit vassal.Exit, content bool) {
	if n.timer != nil {
		n.timer.Stop()
	}
	p.runs = slices.DeleteFunc(p.runs, func(r *run) bool { return r == n })
	e.dropRun(v, n)
	// gofail: var runDropped struct{}
	defer e.mark(v)
	failed, how := began.IsZero(), v.ended(exit)
	if failed {
		how, p.passing = exit.Err.Error(), passing(p.passing, exit.Err)
	} else if p.passing = 0; exit.Err != nil {
		e.Log.Error("cleaning up after a process", "vassal", v.name, "process", p.name(), "err", exit.Err)
	}
	switch {
	case c.ending || v.crew != c:
		p.enter(Stopped)
		e.dismissed(c)
	case p.cron() != nil:
		p.err = ""
		if failed || exit.Unknown || exit.Signal != 0 || exit.Code != 0 {
			p.err = how
		}
		e.Log.Info("job ended", "vassal", v.name, "process", p.name(), "result", how, "took", lived(began).Round(time.Millisecond))
		if len(p.runs) == 0 {
			p.enter(cronIdle)
		}
	case n.again:
		e.startProcess(v, p)
	case content && (p.spec == nil || p.spec.Control):
		c.content = true
		e.resign(v)
	case p.spec != nil && p.spec.Control && !failed:
		p.err = how
		c.reason = "its daemon " + p.name() + " ended: " + how
		e.resign(v)
	default:
		e.backOff(v, c, p, lived(began), how)
	}
}

func lived(began time.Time) time.Duration {
	if began.IsZero() {
		return 0
	}
	return time.Since(began)
}

// backOff schedules the next start of a daemon, or of the command.
func (e *Emperor) backOff(v *member, c *crew, p *process, lived time.Duration, why string) {
	delay := passingDelay()
	if p.passing == 0 {
		delay = p.backoff.died(lived, lived >= p.backoff.young)
	}
	p.err = why
	p.enter(Backoff)
	if p.passing <= 1 && p.backoff.tells(time.Now()) {
		e.Log.Warn("process is down", "vassal", v.name, "process", p.name(), "reason", why, "lived", lived.Round(time.Millisecond), "next", delay.Round(time.Millisecond), "deaths", p.backoff.deaths)
	}
	e.awaitProcess(v, c, p, delay)
}

// awaitProcess ends a process's back-off after some time.
func (e *Emperor) awaitProcess(v *member, c *crew, p *process, delay time.Duration) {
	p.due = time.Now().Add(delay)
	p.timer = time.AfterFunc(delay, func() {
		e.call(func() {
			if v.crew == c && !c.ending && p.state == Backoff {
				e.startProcess(v, p)
			}
		})
	})
}

// askToStop asks a run to stop.
func (e *Emperor) askToStop(v *member, p *process, n *run, reload bool) {
	if n.gen == nil {
		n.cancel()
		return
	}
	sig := v.running.Signal()
	if p.spec != nil {
		sig = p.spec.Signal(reload)
	}
	if err := n.gen.Signal(sig); err != nil {
		e.Log.Warn("stop signal", "vassal", v.name, "process", p.name(), "err", err)
	}
}

// endCrew asks every process to stop; the generation ends with the last. The
// vassal's mercy is theirs.
func (e *Emperor) endCrew(v *member, reload bool) {
	c := v.crew
	if c.ending {
		return
	}
	c.ending = true
	if c.minute != nil {
		c.minute.Stop()
	}
	for _, p := range c.processes {
		if p.timer != nil {
			p.timer.Stop()
		}
		for _, n := range p.runs {
			e.askToStop(v, p, n, reload)
		}
	}
	e.dismissed(c)
}

// resign ends a crew of its own will: nobody else looks after its mercy.
func (e *Emperor) resign(v *member) {
	ground, mercy := v.crew.ground, e.mercy(v.running)
	v.crew.mercy = time.AfterFunc(mercy, func() {
		e.Log.Warn("vassal did not stop in time; killing it", "vassal", v.name, "mercy", mercy)
		ground.Kill()
	})
	e.endCrew(v, false)
}

// dismissed ends the generation once nobody is left who was told to stop.
func (e *Emperor) dismissed(c *crew) {
	if !slices.ContainsFunc(c.processes, func(p *process) bool { return len(p.runs) > 0 }) {
		c.ground.Kill()
	}
}

// disband ends the record of a crew whose generation has ended.
func (e *Emperor) disband(v *member) {
	c := v.crew
	if c == nil {
		return
	}
	v.crew = nil
	close(c.over)
	for _, t := range []*time.Timer{c.minute, c.mercy} {
		if t != nil {
			t.Stop()
		}
	}
	for _, p := range c.processes {
		if p.timer != nil {
			p.timer.Stop()
		}
		e.closeOutput(v, p)
	}
}

func (e *Emperor) closeOutput(v *member, p *process) {
	o := p.output
	p.output = nil
	e.endOutput(o, v.name, p.name())
}

// runCrons starts the jobs that are due, and comes back in the next minute. A
// job that was due while the emperor could not look runs once.
func (e *Emperor) runCrons(v *member) {
	c := v.crew
	now := time.Now()
	every, fixed := v.clock.advance(now)
	for _, p := range c.processes {
		cron := p.cron()
		if cron == nil {
			continue
		}
		due := fixed
		if cron.Hour == -1 {
			due = every
		}
		switch {
		case !due.any(cron.Matches):
		case len(p.runs) > 0 && cron.Unique:
			e.Log.Info("job still runs; not started again", "vassal", v.name, "process", p.name())
		case len(p.runs) >= maxRuns:
			e.Log.Warn("job runs too often already; not started again", "vassal", v.name, "process", p.name(), "runs", len(p.runs))
		default:
			e.startProcess(v, p)
		}
	}
	c.minute = time.AfterFunc(untilMinute(now), func() {
		e.call(func() {
			if v.crew == c && !c.ending {
				e.runCrons(v)
			}
		})
	})
}
