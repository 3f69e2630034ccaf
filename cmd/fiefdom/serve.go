package main

import (
	"context"
	"errors"
	"os"
	"sync"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/tuntap/control"
	"fiefdom/vassal"
)

// serve runs the router, the vassals and what watches over them until ctx is
// done; then the vassals end first, the router after them.
func (r *runner) serve(ctx context.Context, networks []*control.Network, host *nat.Host, cgroup vassal.Cgroup) error {
	if err := vassal.ProtectFromOOM(); err != nil {
		r.log.Info("not protected from a lack of memory", "err", err)
	}
	for _, lack := range vassal.LacksOfKernel() {
		r.log.Warn("apps are confined without what this kernel lacks", "lacks", lack)
	}
	beside, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if len(networks) > 0 {
		if serves, err := r.route(ctx, beside, networks, cgroup, wg.Go); err != nil || !serves {
			return err
		}
	}
	r.emperor.ReadRules, r.emperor.Nameless = r.readRules, r.names.keeper.Trouble
	if host != nil {
		odds := &atOdds{look: host.Collisions, log: r.log}
		r.emperor.Closed = odds.closed
		r.emperor.Publish = func(all []emperor.Published) error {
			err := r.publish(host, all)
			if err == nil && len(all) > 0 {
				wg.Go(odds.tell) // no vassal waits for that
			}
			return err
		}
		wg.Go(func() { r.complain("host network", host.Watch(beside)) })
	}
	r.emperor.Named, r.emperor.Hosts = r.named, r.names.hosts.do
	if err := r.startNames(beside, cgroup, wg.Go); err != nil {
		return err
	}
	wg.Go(func() { r.complain("kernel's bridges", r.bridges.rules.Watch(beside)) })
	wg.Go(func() { r.bridges.follow(beside) })
	wg.Go(func() { vassal.WatchHostEnds(beside, r.instance.Name, r.log, r.emperor.Unplugged) })
	r.show(beside, &wg)
	wg.Go(func() { r.obey(beside) })
	if r.vault != nil {
		wg.Go(func() { r.vault.Run(beside) })
	}
	wg.Go(func() { r.complain("control API", r.emperor.ServeAPI(beside)) })
	wg.Go(func() { r.complain("commands in jails", r.emperor.ServeExec(beside)) })
	r.log.Info("emperor running", "instance", r.instance.Name, "pid", os.Getpid())
	r.ran, r.leaves = true, false // from here on they are ours
	// gofail: var emperorServes struct{}
	err := r.emperor.Run(ctx)
	// gofail: var vassalsEnded struct{}
	r.vault.End()
	// gofail: var vaultEnded struct{}
	return err
}

// route starts the router and what keeps it, and returns once it serves; false
// without an error is that ctx ended before. They end with beside.
func (r *runner) route(ctx, beside context.Context, networks []*control.Network, cgroup vassal.Cgroup, spawn func(func())) (serves bool, err error) {
	if err := r.makeKeeper(networks, cgroup); err != nil {
		return false, err
	}
	if err := r.keeper.RefreshAddresses(); err != nil {
		return false, err
	}
	ready, failed := make(chan struct{}), make(chan error, 1)
	spawn(func() {
		if err := r.keeper.Run(beside, func() { close(ready) }); err != nil {
			failed <- err
		}
	})
	select {
	case <-ready:
	case err := <-failed:
		return false, err
	case <-ctx.Done():
		return false, nil
	}
	// gofail: var routerServes struct{}
	r.keeper.Settle() // the orphans' jails were handed over before it was ready
	// gofail: var routerSettled struct{}
	spawn(func() { r.complain("addresses", r.keeper.FollowAddresses(beside)) })
	r.emperor.Reserve, r.emperor.Traffic, r.emperor.Explain = r.reserve, r.traffic, r.explain
	r.emperor.Drops, r.emperor.Capture = r.drops, r.capture
	r.emperor.SetChains, r.emperor.Counted = r.setChains, r.counted
	return true, nil
}

// show starts what only looks: the stats server, the metrics and the web page.
// No vassal waits for those, nor fails because one of them cannot listen.
func (r *runner) show(beside context.Context, wg *sync.WaitGroup) {
	stats, err := r.statsListener()
	if err != nil {
		r.log.Error("no stats server", "err", err)
	}
	if stats != nil {
		wg.Go(func() { r.complain("stats server", r.emperor.ServeStats(beside, stats)) })
	}
	scrapes, err := r.metricsListener()
	if err != nil {
		r.log.Error("no metrics", "err", err)
	}
	if scrapes != nil {
		wg.Go(func() { r.complain("metrics", serveMetrics(beside, scrapes, r.collector(), r.log)) })
	}
	if err := r.startWeb(beside, wg); err != nil {
		r.log.Error("no web page", "err", err)
	}
}

func (r *runner) complain(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.log.Error(what, "err", err)
	}
}
