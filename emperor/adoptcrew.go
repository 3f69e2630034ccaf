package emperor

import "slices"

// restoreCrew goes on with the crew of a generation that has one.
func (e *Emperor) restoreCrew(v *member, o *orphan, was *resolved) {
	if len(v.running.Attached) == 0 {
		return
	}
	v.crew = &crew{ground: v.gen, r: was, door: v.door, over: make(chan struct{}), told: true}
	crons := e.recruit(v)
	for _, p := range v.crew.processes {
		e.restoreProcess(v, p, o)
	}
	if crons {
		e.runCrons(v)
	}
}

func (e *Emperor) restoreProcess(v *member, p *process, o *orphan) {
	var n processNote
	if i := slices.IndexFunc(o.note.Processes, func(n processNote) bool { return n.Name == p.name() }); i >= 0 {
		n = o.note.Processes[i]
	}
	p.since, p.started, p.ran, p.err, p.backoff.deaths = n.Since, n.Started, n.Ran, n.Error, n.Deaths
	for _, r := range o.runs {
		if r.note.Process == p.name() {
			e.restoreRun(v, p, r)
		}
	}
	switch {
	case len(p.runs) > 0:
		p.state = Running
	case p.cron() != nil:
		p.state = cronIdle
	case n.State == Backoff:
		p.state = Backoff
		e.awaitProcess(v, v.crew, p, o.note.left(n.Wait))
	case o.note.State == Running:
		e.startProcess(v, p)
	default:
		p.enter(Stopped)
	}
	e.watchTouches(v, p)
}

func (e *Emperor) restoreRun(v *member, p *process, r *orphanRun) {
	defer closeFile(r.pipe)
	c, n := v.crew, &run{id: r.note.ID, gen: r.gen, pid: r.note.PID, cancel: func() {}}
	p.runs = append(p.runs, n)
	r.followed = func(pid int) { e.follow(v, p, n, pid) }
	if p.spec != nil && p.output == nil && v.output != nil {
		var err error
		if p.output, err = e.openCrewOutput(v.name, p.spec, v.output); err != nil {
			e.Log.Warn("output", "vassal", v.name, "process", p.name(), "err", err)
		}
	}
	e.limitRun(v, p, n)
	e.Log.Info("process adopted", "vassal", v.name, "process", p.name(), "pid", n.pid)
	e.jobs.Go(func() { e.awaitRun(v, c, p, n, r.gen) })
}
