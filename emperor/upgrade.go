package emperor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"
)

// Replace has the emperor's process become another program, as exec does, at a
// moment when all that the next emperor needs is in the vault. It returns only if
// that is not so, or exec fails; then the emperor goes on.
func (e *Emperor) Replace(exec func() error) error {
	if err := e.replaceable(); err != nil {
		return err
	}
	result := make(chan error, 1)
	e.call(func() {
		if e.ending {
			result <- errors.New("the emperor is stopping")
			return
		}
		e.flush()
		err := e.whole()
		if err == nil {
			resume := e.haltOutputs()
			// A child between clone and exec has all our descriptors, the lock's among
			// them, and would keep them from the next emperor.
			syscall.ForkLock.Lock()
			err = exec()
			syscall.ForkLock.Unlock()
			resume()
		}
		result <- err
	})
	select {
	case err := <-result:
		return err
	case <-e.stopped:
		return errors.New("the emperor has stopped")
	}
}

// replaceable says why the next emperor would not find all that he needs, as far
// as is known before the loop stands still for it.
func (e *Emperor) replaceable() error {
	if e.Vault == nil {
		return errors.New("there is no vault from which the next emperor could adopt the vassals; with emperor-orphans = adopt there is")
	}
	if e.unkept.count() > 0 {
		e.Refill(context.Background()) // what it lacked may be there by now
	}
	return e.whole()
}

// whole says why the vault does not have all that it was given.
func (e *Emperor) whole() error {
	if n := e.unkept.count(); n > 0 {
		return fmt.Errorf("the vault does not take what the next emperor needs (%d things); see the log, and try again", n)
	}
	if err := e.Vault.Check(); err != nil {
		return fmt.Errorf("%w; the next emperor would find no vassals; try again", err)
	}
	return nil
}

// apiUpgrade answers when the upgrade is about to happen, or why it is not.
func (e *Emperor) apiUpgrade(w http.ResponseWriter, r *http.Request) {
	if uid, ok := r.Context().Value(peerKey{}).(uint32); !ok || uid != 0 {
		http.Error(w, "only root upgrades the emperor", http.StatusForbidden)
		return
	}
	become, err := e.Upgrade(r.Context())
	if err == nil {
		err = e.replaceable()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	answer(w, e.self())
	if err := http.NewResponseController(w).Flush(); err != nil {
		e.Log.Debug("upgrade", "err", err)
	}
	e.jobs.Go(become)
}

// Upgrade has the emperor become the program that is installed now, and returns
// once that one answers. It returns the emperor as it was and as it is.
func (c *Client) Upgrade(ctx context.Context) (before, after Self, err error) {
	if err := c.ask(ctx, http.MethodPost, "/emperor/upgrade", &before); err != nil {
		return before, after, err
	}
	for {
		if after, err = c.Self(ctx); err == nil && !after.Began.Equal(before.Began) {
			return before, after, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return before, after, errors.Join(ctx.Err(), err)
		}
	}
}
