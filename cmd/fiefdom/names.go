package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/responder"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// responderUID is the responder's: nobody else has it.
const responderUID = 65521

// names is what this emperor has of the responder.
type names struct {
	keeper *responder.Keeper
	hosts  *hostsKeeper
	where  namePlaces
	at     map[string]uint16 // the ports of the routers' networks

	known chan struct{} // closed when all vassals are known
	once  sync.Once     // of known
}

// knownTime is how long questions may wait for that. A C library waits for 5 s.
const knownTime = 2 * time.Second

// newNames makes the responder's keeper.
func (r *runner) newNames() {
	r.names.hosts, r.names.at, r.names.known = newHostsKeeper(r), map[string]uint16{}, make(chan struct{})
	r.names.where = namePlaces{found: map[string]*vault.Files{}, open: map[string][]responder.Socket{}}
	r.later(r.names.where.close)
	r.names.keeper = &responder.Keeper{Log: r.log, UID: responderUID, GID: responderUID, Started: r.instance.RecordResponder}
}

// startNames runs the responder until ctx is done. That of a former emperor goes
// on until this one answers.
func (r *runner) startNames(ctx context.Context, cgroup vassal.Cgroup, wait func(func())) error {
	end, err := r.instance.FormerResponder()
	if err != nil {
		return err
	}
	wait(func() { r.names.hosts.run(ctx) })
	wait(func() { r.followHost(ctx) })
	k := r.names.keeper
	if !k.Used() { // a bridge may come that brings the first socket
		if err := end(); err != nil {
			return err
		}
		end = func() error { return nil }
	}
	if cgroup != "" {
		child, err := cgroup.Make(emperor.ResponderGroup)
		if err != nil {
			return err
		}
		if k.Cgroup, err = child.Open(); err != nil {
			return err
		}
		r.later(k.Cgroup.Close)
	}
	k.Served = func() {
		if err := end(); err != nil {
			r.log.Warn("end the former emperor's responder", "err", err)
		}
		end = func() error { return nil }
	}
	r.useResolvers(responder.HostConf())
	wait(func() {
		// One that knew half of the names would deny the others, while the former one, or
		// the sockets, could still have the questions.
		select {
		case <-r.names.known:
		case <-time.After(knownTime):
		case <-ctx.Done():
			return
		}
		r.dropFound()
		r.complain("names", k.Run(ctx))
	})
	return nil
}

// named tells the responder who there is.
func (r *runner) named(all []emperor.Named, whole bool) {
	r.names.hosts.take(all, whole)
	vassals := make([]responder.Vassal, len(all))
	for i, n := range all {
		vassals[i].Name, vassals[i].Nameless = n.Name, n.Nameless
		for _, p := range n.On {
			vassals[i].On = append(vassals[i].On, responder.Access(p))
		}
	}
	r.names.keeper.Change(func(f *responder.Feed) { f.Vassals = vassals })
	if whole {
		r.names.once.Do(func() { close(r.names.known) })
	}
}

func (r *runner) useResolvers(c responder.Conf) {
	r.names.keeper.Change(func(f *responder.Feed) {
		if f.Resolvers != nil && !slices.Equal(f.Resolvers, c.Resolvers) {
			r.log.Info("the host has other resolvers now", "resolvers", c.Resolvers)
		}
		f.Resolvers = append([]netip.AddrPort{}, c.Resolvers...)
	})
}

// maxSearch bounds the search list, as C libraries do (resolv.conf(5)).
const maxSearch = 6

// ownResolv is the resolv.conf of vassals that ask the responder.
func ownResolv(asked []netip.Addr) string {
	var b strings.Builder
	for _, a := range asked[:min(len(asked), 3)] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	search := append([]string{responder.Zone}, responder.HostConf().Search...)
	fmt.Fprintf(&b, "search %s\n", strings.Join(search[:min(len(search), maxSearch)], " "))
	return b.String()
}

// writeResolv writes the resolv.conf of a network's vassals, in place: those that
// run have it mounted.
func (r *runner) writeResolv(device, text string) (string, error) {
	path := r.resolvPath(device)
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, []byte(text)) {
		return path, nil
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", err
	}
	// Every vassal's uid reads it, whatever umask the emperor was started with.
	return path, os.Chmod(path, 0o644)
}

func (r *runner) resolvPath(device string) string { return r.instance.Path("resolv-" + device) }

// hostsResolv is the resolv.conf of vassals that ask the host's resolvers themselves.
func hostsResolv(resolvers []netip.Addr) string {
	var b strings.Builder
	for _, a := range resolvers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}
