package emperor

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Scan looks for new, changed and removed inis now, as SIGWINCH asks.
func (e *Emperor) Scan() { e.call(e.rescan) }

// Forgive forgets that vassals died young, as SIGURG asks: those in a back-off
// start now, or sleep if they are on demand, and the next death of any is its first.
func (e *Emperor) Forgive() {
	e.call(func() {
		e.Log.Info("all back-offs end")
		for _, name := range slices.Sorted(maps.Keys(e.vassals)) {
			v := e.vassals[name]
			v.backoff.clear()
			if v.state == Backoff {
				e.happen(v, v.asDue())
			}
		}
	})
}

// Report logs how every vassal is, as SIGUSR1 asks.
func (e *Emperor) Report(ctx context.Context) {
	all := e.statuses(ctx)
	e.Log.Info("report", "vassals", len(all))
	for _, s := range all {
		e.Log.Info("vassal is "+string(s.State), "vassal", s.Name, "pid", s.PID, "uid", s.UID, "addr", s.Addresses,
			"restarts", s.Restarts, "loyal", s.Loyal, "accepting", s.Accepting, "since", s.Since.Format(time.RFC3339), "err", s.Error)
	}
}
