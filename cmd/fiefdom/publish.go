package main

import (
	"errors"
	"net/netip"
	"slices"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/tuntap"
)

// publish has the host lead ports to vassals, and the routers let vassals
// reach them.
func (r *runner) publish(host *nat.Host, all []emperor.Published) error {
	if err := host.Publish(hostPorts(all)); err != nil {
		return err
	}
	// gofail: var hostPublished struct{}
	if err := r.bridges.rules.Publish(hostPorts(all)); err != nil {
		return err
	}
	ports := routerPorts(all)
	var errs []error
	for _, n := range r.networks {
		errs = append(errs, r.keeper.Change(n.Device, func(c *tuntap.NetworkConfig) { c.Published = ports }))
	}
	return errors.Join(errs...)
}

// endLost ends what is published in networks that are gone, or others now: the
// host cannot lead it to a vassal any more, and would lead nothing else either.
func (r *runner) endLost() {
	r.bridges.mu.Lock() // not inside, where the emperor waits
	nets := slices.Concat(r.masquerading, r.bridges.masqs)
	r.bridges.mu.Unlock()
	r.emperor.KeepPublished(func(p emperor.Published) bool {
		return slices.ContainsFunc(nets, func(n nat.Network) bool {
			return n.Device == p.Device && slices.ContainsFunc(n.Pool, func(pool netip.Prefix) bool { return pool.Contains(p.To.Addr()) })
		})
	})
}

// hostPorts is what is published, for the host's netfilter.
func hostPorts(all []emperor.Published) []nat.Published {
	list := make([]nat.Published, len(all))
	for i, p := range all {
		list[i] = nat.Published{Device: p.Device, Host: p.Host, First: p.First, Last: p.Last, Proto: p.Proto, To: p.To, From: p.From}
	}
	return list
}

// routerPorts is what is published, for a router: what its vassals may reach at
// the host's addresses.
func routerPorts(all []emperor.Published) []tuntap.Port {
	var ports []tuntap.Port
	for _, p := range all {
		if !p.Host.IsLoopback() {
			ports = append(ports, tuntap.Port{Addr: p.Host, Proto: p.Proto, First: p.First, Last: p.Last})
		}
	}
	return ports
}

// strangers are the pools of the other networks.
func (l *loaded) strangers(o *tuntap.NetworkOptions) []netip.Prefix {
	var pools []netip.Prefix
	for i := range l.networks {
		if n := &l.networks[i]; n.Device != o.Device {
			pools = append(pools, n.Pool()...)
		}
	}
	return pools
}
