package emperor

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// said is what a generation has said by the emperor protocol so far.
type said struct {
	ready     bool        // it has started
	accepting bool        // it takes requests
	loyal     bool        // it has answered one
	reloading bool        // it was told to reload itself and is not ready again
	unwell    string      // why it was killed for its health; "": it was not
	silent    bool        // its heartbeats stopped, and it was killed
	pulse     *time.Timer // until the next heartbeat must come; nil before the first
	patience  *time.Timer // until it must be ready again; nil if it does not reload
	begged    bool        // it asked for more of its kind
	served    bool        // its options were sent with the order to reload

	readyAt, acceptedAt, loyalAt, beatAt time.Time // when it said so last
}

// forgetPulse stops waiting for heartbeats until the next comes.
func (s *said) forgetPulse() {
	if s.pulse != nil {
		s.pulse.Stop()
		s.pulse = nil
	}
}

// listen hears what a new generation says. A byte that nobody knows is told
// once a generation.
func (e *Emperor) listen(v *member, g *vassal.Generation) {
	v.said = said{}
	e.hear(v, g)
}

// hear takes what a generation says from now on.
func (e *Emperor) hear(v *member, g *vassal.Generation) {
	if g.Channel == nil {
		return
	}
	e.jobs.Go(func() {
		told := false
		err := g.Channel.Listen(func(n vassal.Notice) {
			if !slices.Contains(notices, n) {
				if !told {
					e.Log.Warn("the vassal says what the emperor protocol does not know; ignored from now on", "vassal", v.name, "byte", byte(n))
				}
				told = true
				return
			}
			e.call(func() {
				if v.gen == g && v.state == Running {
					e.heard(v, n)
				}
			})
		})
		if err != nil {
			e.Log.Warn("the vassal is not heard any more", "vassal", v.name, "err", err)
		}
	})
}

var notices = []vassal.Notice{
	vassal.NoticeReady, vassal.NoticeConfig, vassal.NoticeAccepting, vassal.NoticeLoyal,
	vassal.NoticeStop, vassal.NoticeHeartbeat, vassal.NoticeReinforce,
}

// heard takes one byte of a running vassal.
func (e *Emperor) heard(v *member, n vassal.Notice) {
	if n != vassal.NoticeHeartbeat || v.said.pulse == nil { // only the first heartbeat begins something
		e.mark(v)
	}
	switch n {
	case vassal.NoticeReady:
		v.said.ready, v.said.readyAt = true, time.Now()
		e.renewed(v)
	case vassal.NoticeAccepting:
		v.said.accepting, v.said.acceptedAt = true, time.Now()
		e.renewed(v) // a uwsgi says ready only once in its life
	case vassal.NoticeLoyal:
		if !v.said.loyal {
			e.Log.Info("vassal is loyal", "vassal", v.name)
		}
		v.said.loyal, v.said.loyalAt = true, time.Now()
		v.backoff.clear()
	case vassal.NoticeStop:
		e.Log.Info("vassal asks to be stopped", "vassal", v.name)
		e.happen(v, v.asLeave())
	case vassal.NoticeHeartbeat:
		v.said.beatAt = time.Now()
		e.beat(v)
	case vassal.NoticeConfig:
		e.tell(v)
	case vassal.NoticeReinforce:
		if !v.said.begged {
			e.Log.Info("the vassal asks for more of its kind; an ini is one vassal here, so nobody comes (its processes or cheaper can)", "vassal", v.name)
		}
		v.said.begged = true
	}
}

// renewed ends the reload that the app was told to do.
func (e *Emperor) renewed(v *member) {
	v.said.served = false
	if v.said.reloading {
		v.said.reloading = false
		if v.said.patience != nil {
			v.said.patience.Stop()
		}
		v.renewals++
		if v.config != nil && v.config.Log.Reopen {
			v.output.reopen()
		}
		e.Log.Info("vassal reloaded", "vassal", v.name, "pid", v.gen.PID)
	}
}

// beat waits for the next heartbeat. A vassal whose heart has stopped is
// killed: it would not hear an order either. While it reloads its heart may
// rest, though workers that finish still beat.
func (e *Emperor) beat(v *member) {
	v.said.forgetPulse()
	if v.said.reloading {
		return
	}
	patience, g := e.Config.heartbeat(), v.gen
	var pulse *time.Timer
	pulse = time.AfterFunc(patience, func() {
		e.call(func() {
			if v.gen != g || v.said.pulse != pulse || v.state != Running {
				return
			}
			e.Log.Error("no heartbeat; killing the vassal", "vassal", v.name, "pid", g.PID, "silent", patience)
			v.said.silent = true
			g.Kill()
		})
	})
	v.said.pulse = pulse
}

// loyal says whether a life was long or good enough to be no reason for a
// back-off. A uwsgi says so itself, after its first request; if it never gets
// one, a life longer than any delay will do.
func (v *member) loyal(lived time.Duration) bool {
	young := v.backoff.young
	if v.running != nil && len(v.running.App) > 0 {
		young = max(young, v.backoff.max)
	}
	return v.said.loyal || lived >= young
}

// listens says whether the running vassal takes orders by now. Until a uwsgi
// has started it leaves them unread, and signals end it at once.
func (v *member) listens() bool {
	return v.gen != nil && v.gen.Channel != nil && (v.said.ready || len(v.running.App) == 0)
}

// reloadsItself says whether the running vassal can take its new ini by an
// order: nothing in it has changed but what the emperor itself minds, and
// options of the app that it finds when it loads again.
func (e *Emperor) reloadsItself(v *member) bool {
	if v.state != Running || !v.listens() {
		return false
	}
	r, bad := e.resolve(v.config)
	return bad == nil && r.key == v.key && r.form() == v.form && (bytes.Equal(r.document, v.options) || v.gen.TakesSettings())
}

// form is everything that a generation is made of, its jail aside, and what it
// takes by its settings; where in the ini a hook stands does not count.
func (r *resolved) form() string {
	p := r.plan
	if p.Settings == vassal.SettingsFile {
		p.Args = p.Args[:1]
	}
	p.HostEnv, p.Hosts = nil, "" // a file that says what the jail is
	p.Hooks = slices.Clone(p.Hooks)
	for i := range p.Hooks {
		p.Hooks[i].Pos = ini.Pos{}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "" // equal to none that was started: a plan that is started was sent as JSON
	}
	door := ""
	if r.door != nil {
		door = r.door.address.String()
	}
	return r.dir + " " + door + " " + string(b)
}

// renew has the app reload itself, or starts it anew if it cannot be told.
func (e *Emperor) renew(v *member) {
	err := e.refresh(v)
	if err == nil {
		err = v.gen.Channel.Order(vassal.OrderReload)
	}
	if err != nil {
		e.Log.Warn("the vassal cannot be told to reload; starting it anew", "vassal", v.name, "err", err)
		e.happen(v, restart)
		return
	}
	e.Log.Info("vassal told to reload", "vassal", v.name, "pid", v.gen.PID)
	v.dates.ran()
	v.running = v.config
	v.said.forgetPulse()
	switch {
	case !v.said.ready, len(v.running.App) > 0 && !v.said.accepting:
		v.renewals++ // it never says when it is back: a command that is silent, a uwsgi without workers
	case !v.said.reloading:
		v.said.reloading = true
		e.expectReady(v)
	}
}

// reloadPatience is the time for a reload where the ini has no reload-mercy: a
// uwsgi gives its workers a minute for what they do, and then has to load.
const reloadPatience = 2 * time.Minute

// expectReady starts the vassal anew if it does not come back from its reload.
func (e *Emperor) expectReady(v *member) {
	patience, g := reloadPatience, v.gen
	if v.running.MercySet && v.running.ReloadMercy > 0 {
		patience = v.running.ReloadMercy
	}
	var timer *time.Timer
	timer = time.AfterFunc(patience, func() {
		e.call(func() {
			if v.gen != g || v.said.patience != timer || !v.said.reloading || v.state != Running {
				return
			}
			e.Log.Error("the vassal is not back from its reload; starting it anew", "vassal", v.name, "pid", g.PID, "patience", patience)
			e.happen(v, restart)
		})
	})
	v.said.patience = timer
}

// refresh gives the app its newest options, for it to find when it loads again.
func (e *Emperor) refresh(v *member) error {
	r, bad := e.resolve(v.config)
	if bad != nil {
		return bad
	}
	options := r.document
	if v.gen.TakesSettings() {
		v.options, v.said.served = options, true
		return v.gen.Renew(options)
	}
	if !bytes.Equal(options, v.options) {
		return errors.New("it has not read its options of before")
	}
	return nil
}

// tell gives the app its options once more, because it asked. If some wait to
// be read, those are the ones. Those that came with the order to reload are too,
// read or not: a uwsgi asks at each of its reloads, and the word may be old.
func (e *Emperor) tell(v *member) {
	if v.said.served || v.gen == nil || !v.gen.TakesSettings() {
		v.said.served = false
		return
	}
	if err := v.gen.Renew(v.options); err != nil {
		e.Log.Warn("the vassal's options cannot be sent", "vassal", v.name, "err", err)
	}
}

// dismiss asks the running app to stop: by an order if it listens, else by its
// signal, and by both if its ini names a signal.
func (e *Emperor) dismiss(v *member) {
	g, sig := v.gen, v.running.Signal()
	order := vassal.OrderStop
	if e.ending && e.Config.Graceful || !e.ending && v.door != nil { // who waits at a door is not sent away
		order = vassal.OrderStopGently
	}
	ordered := false
	if v.listens() && !v.said.reloading {
		err := g.Channel.Order(order)
		if ordered = err == nil; !ordered {
			e.Log.Warn("the vassal cannot be told to stop; it gets its signal", "vassal", v.name, "err", err)
		}
	}
	if ordered && v.running.StopSignal == 0 {
		return
	}
	if err := g.Signal(sig); err != nil {
		e.Log.Warn("stop signal", "vassal", v.name, "err", err)
	}
}

// mercy is the time that the vassal has for stopping.
func (e *Emperor) mercy(c *vassal.Config) time.Duration {
	if c.MercySet || e.Config.CurseTolerance == 0 {
		return c.ReloadMercy
	}
	return e.Config.CurseTolerance
}
