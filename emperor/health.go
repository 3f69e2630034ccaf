package emperor

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"fiefdom/vassal"
)

// checkJitter is the part of an interval by which a check may come early: so
// vassals that began together are not asked together for ever. Late it never
// comes, for a hung app has to be found in time.
const checkJitter = 8

// watchHealth asks a generation how it is, until the function that it returns
// is called.
func (e *Emperor) watchHealth(v *member, g *vassal.Generation, jail *vassal.Jail) (stop func()) {
	h, n, w := v.running.Health, v.notices, v.running.Watchdog
	ctx, cancel := context.WithCancel(context.Background())
	if w > 0 && n != nil {
		e.jobs.Go(func() { e.watchdog(ctx, v, g, n, w) })
	}
	if h.Kind == "" {
		return cancel
	}
	e.jobs.Go(func() {
		if why := e.askUntilUnwell(ctx, v.name, &h, g, jail); why != nil {
			e.call(func() { e.unwell(v, g, why) })
		}
	})
	return cancel
}

// askUntilUnwell returns why the vassal is unhealthy; nil: it is not asked any
// more.
func (e *Emperor) askUntilUnwell(ctx context.Context, name string, h *vassal.Health, g *vassal.Generation, jail *vassal.Jail) error {
	every, failures := h.Every(), 0
	wait := time.NewTimer(rand.N(every))
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return nil
		}
		began := time.Now()
		err := e.ask(ctx, h.Within(), g, jail, &h.Probe)
		switch {
		case ctx.Err() != nil:
			return nil
		case vassal.Passing(err): // nobody could ask, which says nothing of the app
			e.Log.Debug("no health check", "vassal", name, "err", err)
		case err == nil:
			if failures > 0 {
				e.Log.Info("vassal is well again", "vassal", name, "failures", failures)
			}
			failures = 0
		default:
			if failures++; failures == 1 { // the others are told of at the end
				e.Log.Warn("health check failed", "vassal", name, "err", err, "unhealthy_after", h.Failures())
			}
			if failures >= h.Failures() {
				return fmt.Errorf("unhealthy: %d checks in a row failed, the last: %w", failures, err)
			}
		}
		wait.Reset(max(0, every-rand.N(every/checkJitter)-time.Since(began)))
	}
}

// unwell ends a vassal that is unhealthy. It is killed: one that hangs would
// not hear a signal.
func (e *Emperor) unwell(v *member, g *vassal.Generation, why error) {
	if v.gen != g || v.state != Running {
		return
	}
	e.Log.Error("killing the vassal", "vassal", v.name, "pid", g.PID, "reason", why)
	v.said.unwell = why.Error()
	g.Kill()
}

// ask asks a generation by a probe, which has that time to answer.
func (e *Emperor) ask(ctx context.Context, within time.Duration, g *vassal.Generation, jail *vassal.Jail, p *vassal.Probe) error {
	if p.Kind == vassal.ProbeExec {
		return e.askByCommand(ctx, within, g, p.Command)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return jail.Ask(ctx, p)
}

// askByCommand runs a command in the jail; code 0 says that all is well. The
// time that it waits for its turn is not the app's.
func (e *Emperor) askByCommand(ctx context.Context, within time.Duration, g *vassal.Generation, command []string) error {
	release, err := slot(ctx, e.visits)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	guest, err := e.visit(ctx, g, "check", vassal.Launch{Plan: g.Beside(command), Output: w, Group: true})
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	var said excerpt
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(&said, r)
	}()
	stop := context.AfterFunc(ctx, guest.Kill)
	exit := guest.Wait()
	late := !stop()
	_ = r.SetReadDeadline(time.Now().Add(time.Second)) // who went away from its cgroup may hold the pipe
	<-heard
	switch {
	case exit.Err != nil:
		return fmt.Errorf("%s: %w", command[0], exit.Err)
	case late:
		return fmt.Errorf("%s: no answer within %s", command[0], within)
	case exit.Signal != 0 || exit.Code != 0:
		if text := said.text(); text != "" {
			return fmt.Errorf("%s: %s: %.200q", command[0], exit, text)
		}
		return fmt.Errorf("%s: %s", command[0], exit)
	}
	return nil
}
