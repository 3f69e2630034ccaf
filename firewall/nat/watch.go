package nat

import (
	"context"
	"fmt"
	"time"
)

const (
	// watchTick is how often to look without being told: at sysctls, and at
	// the rules of iptables-legacy, whose changes nobody announces.
	watchTick = 5 * time.Second
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
	look := true // what changed before we subscribed is not announced
	var last time.Time
	var failed error
	for {
		if look {
			if !events.pause(max(settle, minInterval-time.Since(last))) {
				return nil
			}
			if err := events.drain(); err != nil {
				return err
			}
			failed = h.repair(failed)
			last = time.Now()
		}
		changed, err := events.wait(h.tick)
		if err != nil {
			return fmt.Errorf("watch the host's network: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		look = changed || failed != nil || h.unannounced()
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

// unannounced reports whether there may be a change that no event tells of.
func (h *Host) unannounced() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.filters {
		if f != nil && f.legacy && h.needs(f.v6) {
			return true
		}
	}
	drifted, err := h.drifted()
	return drifted || err != nil
}
