package main

import (
	"context"
	"fmt"

	"fiefdom/emperor"
	"fiefdom/firewall"
	"fiefdom/tuntap"
	"fiefdom/vassal"
)

// The runner's side of rules that change while they are in force: between the
// emperor, who has both chains of a network in one list, and the router.

// chainRules are the rules of a network's chains in one list.
func chainRules(n *tuntap.NetworkOptions) []vassal.Rule {
	var all []vassal.Rule
	for _, r := range n.Out {
		all = append(all, vassal.Rule{Direction: firewall.Out, Rule: r})
	}
	for _, r := range n.In {
		all = append(all, vassal.Rule{Direction: firewall.In, Rule: r})
	}
	return all
}

// chains are the two chains of a list.
func chains(rules []vassal.Rule) (in, out []firewall.Rule) {
	for _, r := range rules {
		if r.Direction == firewall.Out {
			out = append(out, r.Rule)
		} else {
			in = append(in, r.Rule)
		}
	}
	return in, out
}

// written is what the emperor's ini has of a network, as far as it is read again.
func written(n *tuntap.NetworkOptions) emperor.Written {
	return emperor.Written{Pos: n.Pos, Rules: chainRules(n)}
}

// setChains tells the router the chains of a network, and where it stands.
func (r *runner) setChains(network string, now emperor.Written) error {
	return r.keeper.Change(network, func(c *tuntap.NetworkConfig) {
		c.In, c.Out = chains(now.Rules)
		c.File, c.Line = now.Pos.File, now.Pos.Line
	})
}

// readRules reads the emperor's ini again, for its chains alone.
func (r *runner) readRules() (map[string]emperor.Written, error) {
	l, errs := readEmperor(r.program.file)
	if errs.Failed() {
		return nil, fmt.Errorf("%s is bad, so nothing of it is taken; fiefdom check tells all: %w", r.program.file, errs)
	}
	all := map[string]emperor.Written{}
	for i := range l.networks {
		all[l.networks[i].Device] = written(&l.networks[i])
	}
	for i := range r.networks {
		if _, ok := all[r.networks[i].Device]; !ok {
			return nil, fmt.Errorf("%s has no network %s any more; that counts from the emperor's next start or upgrade on", r.program.file, r.networks[i].Device)
		}
	}
	for device := range all { // one that is new has no router yet
		if !r.has(device) {
			delete(all, device)
		}
	}
	return all, nil
}

func (r *runner) has(device string) bool {
	for i := range r.networks {
		if r.networks[i].Device == device {
			return true
		}
	}
	return false
}

// counted asks the router for its chains and their counters.
func (r *runner) counted(ctx context.Context) ([]emperor.CountedChain, error) {
	networks, err := r.keeper.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	var all []emperor.CountedChain
	add := func(network, name string, dir firewall.Direction, stats []tuntap.RuleStats) {
		c := emperor.CountedChain{Network: network, Vassal: name, Direction: dir}
		for _, s := range stats {
			c.Rules, c.Hits = append(c.Rules, vassal.Rule{Direction: dir, Rule: s.Rule}), append(c.Hits, s.Hits)
		}
		all = append(all, c)
	}
	for _, n := range networks {
		add(n.Name, "", firewall.Out, n.Out)
		add(n.Name, "", firewall.In, n.In)
		for _, p := range n.Peers {
			if p.Vassal == "" {
				continue
			}
			add(n.Name, p.Vassal, firewall.Out, p.Out)
			add(n.Name, p.Vassal, firewall.In, p.In)
		}
	}
	return all, nil
}
