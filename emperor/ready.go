package emperor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fiefdom/vassal"
)

// Pauses between two questions to an app that is not ready yet.
const (
	readyPause    = 50 * time.Millisecond
	maxReadyPause = time.Second
)

// awaitReady is the last part of a start: the app runs, and is asked until it
// is ready. One that is not in time, or ends, or is not wanted any more, leaves
// nothing.
func (s *startJob) awaitReady(ctx context.Context) error {
	r := &s.config.Ready
	if r.Kind == "" || s.gen == nil {
		return nil
	}
	gen, output := s.gen, s.output
	s.e.call(func() {
		if v := s.e.vassals[s.name]; v != nil && v.launches == s.launch {
			v.begun, v.output, v.notices = gen, output, s.notices
		}
	})
	ended := make(chan struct{})
	s.e.jobs.Go(func() { defer close(ended); gen.Wait() })
	err := s.askUntilReady(ctx, r, ended)
	if err == nil {
		return nil
	}
	s.gen = nil
	if ctx.Err() != nil { // stopped, or its ini changed: that is no emergency
		if serr := gen.Signal(s.config.Signal()); serr != nil {
			s.e.Log.Warn("stop signal", "vassal", s.name, "err", serr)
		}
		select {
		case <-ended:
		case <-time.After(s.e.mercy(s.config)):
		}
	}
	gen.Kill()
	exit := gen.Wait()
	if exit.Err = errors.Join(exit.Err, s.e.Instance.forgetApp(s.name), s.e.Instance.forgetCgroup(s.name)); exit.Err != nil {
		s.e.Log.Error("cleaning up after a vassal", "vassal", s.name, "err", exit.Err)
	}
	return err
}

// askUntilReady returns nil once the app is ready.
func (s *startJob) askUntilReady(ctx context.Context, r *vassal.Ready, ended <-chan struct{}) error {
	late := time.NewTimer(r.Within())
	defer late.Stop()
	asking, stop := context.WithCancel(ctx)
	defer stop()
	answer := make(chan error, 1)
	pause, began := readyPause, time.Now()
	end := began.Add(r.Within())
	why := errors.New("not asked yet")
	ask := time.NewTimer(0)
	defer ask.Stop()
	var told <-chan struct{}
	var more <-chan time.Duration
	switch r.Kind {
	case vassal.ProbeDelay:
		ask.Reset(r.Delay)
	case vassal.ProbeNotify:
		ask.Stop()
		told, why = s.notices.ready, errors.New("it has not said READY=1")
	}
	if s.notices != nil {
		more = s.notices.extend
	}
	var asked sync.WaitGroup
	defer func() { stop(); asked.Wait() }() // nobody of ours stays in the jail
	for {
		select {
		case <-ask.C:
			if r.Kind == vassal.ProbeDelay {
				return nil
			}
			asked.Go(func() { answer <- s.e.ask(asking, r.Within(), s.gen, s.jail, &r.Probe) })
		case err := <-answer:
			if err == nil {
				s.e.Log.Info("vassal ready", "vassal", s.name, "after", time.Since(began).Round(time.Millisecond))
				return nil
			}
			why = err
			ask.Reset(pause)
			pause = min(2*pause, maxReadyPause)
		case <-told:
			s.e.Log.Info("vassal ready", "vassal", s.name, "after", time.Since(began).Round(time.Millisecond))
			return nil
		case d := <-more: // never less than it has, nor more than is bounded
			last := began.Add(r.Within() + maxExtension)
			if until := time.Now().Add(d); until.After(end) {
				end = until
				if end.After(last) {
					end = last
				}
				late.Reset(time.Until(end))
			}
		case <-ended:
			return fmt.Errorf("it ended before it was ready: %s", s.gen.Wait())
		case <-late.C:
			return fmt.Errorf("not ready within %s (ready = %s): %w", r.Within(), r.Kind, why)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
