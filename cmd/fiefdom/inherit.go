package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
)

// leftoverTime bounds the wait for what a killed emperor left. A router that has
// to be killed takes its devices along one after another, some 20 ms each
// (unregister_netdevice).
const leftoverTime = 2 * time.Minute

// inherit takes over what a killed emperor has left, and ends the rest. Until
// that is done everything is the next emperor's, if this one fails.
func (r *runner) inherit(ctx context.Context) (*emperor.Orphans, error) {
	r.leaves = true
	orphans := r.findOrphans()
	// gofail: var orphansFound struct{}
	orphans, err := r.adoptRouter(ctx, orphans)
	if err != nil {
		return nil, err
	}
	// gofail: var routerAdopted struct{}
	ending, cancel := context.WithTimeout(ctx, leftoverTime)
	defer cancel()
	if err := r.instance.EndLeftovers(ending, r.log, orphans); err != nil {
		return nil, err
	}
	// gofail: var leftoversEnded struct{}
	r.leaves = orphans != nil
	return orphans, nil
}

// later notes how to take back what was just made.
func (r *runner) later(f func() error) { r.undo = append(r.undo, f) }

func (r *runner) takeBack() error {
	var errs []error
	for _, f := range slices.Backward(r.undo) {
		errs = append(errs, f())
		// gofail: var madeUndone struct{}
	}
	return errors.Join(errs...)
}

// finish takes back what was made. Who is told to stop before he has come to run
// ends also what he has found; who fails leaves it to the next one.
func (r *runner) finish(ctx context.Context, err error) error {
	stopped := ctx.Err() != nil && !r.ran
	if stopped && err != nil {
		r.log.Info("told to stop while starting", "err", err)
		err = nil
	}
	r.leaves = r.leaves && !stopped
	err = errors.Join(err, r.takeBack())
	if !stopped {
		return err
	}
	if ferr := r.endFound(); ferr != nil {
		r.leaves = true // it is on record
		err = errors.Join(err, ferr)
	}
	return err
}

// endFound ends all that a former emperor has left.
func (r *runner) endFound() error {
	var sockets []string
	for _, n := range r.keeper.Found() {
		sockets = append(sockets, unixNames(n)...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), leftoverTime)
	defer cancel()
	errs := []error{r.instance.EndLeftovers(ctx, r.log, nil)}
	for _, path := range sockets {
		errs = append(errs, remove(path))
	}
	if host, err := nat.New(r.instance.Name, r.instance.State, r.log); err == nil { // else nothing of ours can be there
		errs = append(errs, host.Remove())
	}
	bridges := &kernelBridges{instance: r.instance.Name, log: r.log, rules: nat.NewBridges(r.instance.Name, r.log)}
	errs = append(errs, bridges.clear())
	return errors.Join(errs...)
}
