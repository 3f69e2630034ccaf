package main

import (
	"errors"
	"fmt"
	"slices"

	"fiefdom/emperor"
	"fiefdom/firewall/nat"
	"fiefdom/vassal"
)

// newKernelBridges joins the host's side of kernel's bridges with the emperor.
func (r *runner) newKernelBridges() {
	r.bridges = &kernelBridges{
		instance: r.instance.Name, log: r.log, rules: nat.NewBridges(r.instance.Name, r.log), known: map[string]emperor.KernelBridge{}, uplinks: map[string]uplink{},
		resolvers: hostResolvers, resolv: r.writeResolv, masq: r.applyHost,
		names: bridgeNames{open: r.openNames, close: r.closeNames, stale: r.names.where.stale, wrong: map[string]string{}},
	}
	for i := range r.networks {
		if n := &r.networks[i]; n.Native() {
			r.bridges.rules.Strangers = append(r.bridges.rules.Strangers, n.Pool()...)
		}
	}
	look := func(b *emperor.KernelBridge) error {
		b.Resolv = r.resolvPath(b.Device)
		return r.bridges.look(b)
	}
	give := func(b emperor.KernelBridge) error {
		err := r.bridges.make(b)
		r.endLost() // it may have got other addresses
		return err
	}
	r.emperor.Kernel = &emperor.KernelSide{Look: look, Make: give, Plug: &vassal.Plugger{Admit: r.bridges.admit, Release: r.bridges.rules.Release}}
}

func portOf(e vassal.HostEnd) nat.Port {
	return nat.Port{Device: e.Device, Bridge: e.Bridge, MAC: e.MAC, Addrs: e.Addrs}
}

func (k *kernelBridges) admit(e vassal.HostEnd) error { return k.rules.Admit(portOf(e)) }

// lookAtBridges says what is wrong with the declared bridges before anything is made.
func (r *runner) lookAtBridges() error {
	for i := range r.config.Bridges {
		b := r.config.Bridges[i]
		if err := r.emperor.Kernel.Look(&b); err != nil {
			return fmt.Errorf("%s: %w", b.Pos, err)
		}
	}
	return nil
}

// setUpBridges makes the declared bridges, and those of the jails that were
// adopted, with the rules of all their ports, in one step: none of them is without
// rules for a moment. What else an emperor of the instance has left is removed.
func (r *runner) setUpBridges() error {
	k := r.bridges
	ends := r.emperor.HostEnds()
	names := map[string]bool{}
	var all []emperor.KernelBridge
	want := func(b emperor.KernelBridge) error {
		if names[b.Device] {
			return nil
		}
		names[b.Device] = true
		err := r.emperor.Kernel.Look(&b)
		all = append(all, b)
		return err
	}
	for i := range r.config.Bridges {
		if err := want(r.config.Bridges[i]); err != nil {
			return fmt.Errorf("%s: %w", r.config.Bridges[i].Pos, err)
		}
	}
	for _, end := range slices.Clone(ends) {
		// One that nobody declares is isolated, whatever it was under the emperor before.
		if err := want(emperor.KernelBridge{Network: emperor.Network{Device: end.Bridge, Isolated: true, Names: true}}); err != nil {
			r.log.Warn("the bridge of a vassal that was adopted", "bridge", end.Bridge, "err", err)
			all = all[:len(all)-1]
			ends = slices.DeleteFunc(ends, func(e vassal.HostEnd) bool { return e.Bridge == end.Bridge })
		}
	}
	r.later(r.removeBridges)
	if err := errors.Join(vassal.RemoveEnds(k.instance, ends), k.removeOurs(func(name string) bool { return names[name] })); err != nil {
		return err
	}
	resolvers := k.resolvers()
	var rules []nat.Bridge
	for i := range all {
		port := uint16(0)
		if k.there(all[i].Device) { // the former emperor's rules may lead questions to it
			port, _ = k.name(&all[i], resolvers)
		}
		rules = append(rules, rulesOf(&all[i], resolvers, port))
	}
	var ports []nat.Port
	for _, end := range ends {
		ports = append(ports, portOf(end))
	}
	if err := k.rules.Set(rules, ports); err != nil {
		return err
	}
	for _, b := range all {
		if err := k.make(b); err != nil {
			return fmt.Errorf("%s: bridge %s: %w", b.Pos, b.Device, err)
		}
	}
	return nil
}

// removeBridges is for the end: the bridges that were there before stay.
func (r *runner) removeBridges() error {
	if r.leaves {
		return nil
	}
	return r.bridges.clear()
}

// clear removes all that the instance has for kernel's bridges.
func (k *kernelBridges) clear() error {
	err := errors.Join(vassal.RemoveEnds(k.instance, nil), k.removeOurs(func(string) bool { return false }))
	return errors.Join(err, k.rules.Remove())
}
