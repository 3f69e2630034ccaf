package nat

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// watchTick is how often to look at sysctls, since nobody tells of them.
	watchTick = 5 * time.Second
	// legacyTick is how often to look at the rules of iptables-legacy, whose
	// changes nobody announces either.
	legacyTick = time.Second
	// settle lets a burst of changes end before we look.
	settle = 100 * time.Millisecond
	// minInterval bounds what a host with ever changing rules costs us.
	minInterval = 500 * time.Millisecond
)

// Watch keeps the host as the last Apply wanted it until ctx ends, and then
// returns nil: rules that others flush or change are put back, and Auto follows
// the default route. A repair that fails is logged and tried again. Idle, it
// sleeps. It returns an error only if it cannot watch.
func (h *Host) Watch(ctx context.Context) error {
	events, err := subscribe(ctx, h.base)
	if err != nil {
		return err
	}
	defer events.close()
	var failed error
	err = events.keep(ctx, func() bool {
		failed = h.repair(failed)
		return failed == nil
	}, func() (bool, error) {
		changed, err := events.wait(h.untold())
		return changed || h.unannounced(), err
	})
	if err != nil {
		return fmt.Errorf("watch the host's network: %w", err)
	}
	return nil
}

// keep repairs what it is about, at first and whenever changed says so, until ctx
// ends. A repair that failed is tried again as soon as changed returns.
func (e *events) keep(ctx context.Context, repair func() bool, changed func() (bool, error)) error {
	var last time.Time
	for look := true; ; { // what changed before we subscribed is not announced
		repaired := true
		if look {
			if !e.pause(max(settle, minInterval-time.Since(last))) {
				return nil
			}
			if err := e.drain(); err != nil {
				return err
			}
			repaired, last = repair(), time.Now()
		}
		found, err := changed()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		look = found || !repaired
	}
}

// repair reconciles and returns the error, which it logs unless the last look
// failed in the same way.
func (h *Host) repair(before error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.reconcile()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		h.log.Error("cannot keep the host's network in order", "err", err)
	}
	return err
}

// untold is how long to wait for news before looking without.
func (h *Host) untold() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.legacy() {
		return legacyTick
	}
	return watchTick
}

// legacy reports whether a family in use is iptables-legacy's.
func (h *Host) legacy() bool {
	return slices.ContainsFunc(h.filters[:], func(f *netfilter) bool { return f != nil && f.legacy && h.needs(f.v6) })
}

// unannounced reports whether there may be a change that no event tells of.
func (h *Host) unannounced() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	drifted, err := h.drifted()
	return drifted || err != nil || h.legacy() || slices.Contains(h.behind[:], true)
}
