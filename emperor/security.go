package emperor

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"fiefdom/internal/exposure"
	"fiefdom/vassal"
)

// appraisal is a vassal whose exposure is to be judged, with what the loop knows
// of it.
type appraisal struct {
	facts      exposure.Facts
	why        string // there is nothing to judge; empty: there is
	config     *vassal.Config
	resolved   *resolved
	generation *vassal.Generation // nil: what its ini asks for
	whole      *vassal.Generation // that all its processes are in
	observed   *vassal.Observed
}

// apiSecurity answers with the facts of all vassals that the asker may see. Those
// whose ini was never good have none.
func (e *Emperor) apiSecurity(w http.ResponseWriter, r *http.Request) {
	all := []exposure.Facts{}
	for _, a := range e.appraise(func(s *Status) bool { return mayTouch(r, *s) }) {
		if a.look(); a.why == "" {
			all = append(all, a.facts)
		}
	}
	answer(w, all)
}

// apiSecurityOf answers with the facts of one vassal.
func (e *Emperor) apiSecurityOf(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	all := e.appraise(func(other *Status) bool { return other.Name == s.Name && mayTouch(r, *other) })
	if len(all) == 0 {
		http.Error(w, noVassal(s.Name, nil, 0), http.StatusNotFound) // it has just gone
		return
	}
	if all[0].look(); all[0].why != "" {
		http.Error(w, all[0].why, http.StatusConflict)
		return
	}
	answer(w, all[0].facts)
}

// appraise asks the loop for what it knows of vassals, by name: one after the
// other, for what an ini comes to is worked out anew, and others ask the loop, too.
func (e *Emperor) appraise(wanted func(*Status) bool) (all []*appraisal) {
	users := map[int]int{} // vassals of each uid
	found := e.known(func(s *Status) bool {
		if s.UID >= 0 {
			users[s.UID]++
		}
		return wanted(s)
	})
	for i := range found {
		one := make(chan *appraisal, 1)
		e.call(func() {
			if v := e.vassals[found[i].Name]; v != nil {
				if s := e.statusOf(v); wanted(&s) {
					one <- e.appraiseOne(v, &s, users)
					return
				}
			}
			one <- nil // it has just gone
		})
		select {
		case a := <-one:
			if a != nil {
				all = append(all, a)
			}
		case <-e.stopped:
			return all
		}
	}
	return all
}

func (e *Emperor) appraiseOne(v *member, s *Status, users map[int]int) *appraisal {
	a := &appraisal{config: v.config, generation: v.observable(), whole: v.gen}
	a.facts.Vassal, a.facts.File = v.name, v.file.path
	if a.generation != nil && v.running != nil {
		a.config = v.running
	}
	if a.config == nil {
		a.why = cmp.Or(s.Error, "its ini was not read yet")
		return a
	}
	r, bad := e.resolve(a.config)
	if bad != nil {
		a.why = bad.Error()
		return a
	}
	a.resolved = r
	links, limits, published := r.links, &r.resources, publishedTo(r.published)
	if v.jail != nil && a.generation != nil {
		links, limits, published = v.jail.Links(), &v.limits, e.publishedStatus(v.jail)
	}
	a.facts.Limits = exposure.Limits{Memory: limits.Memory > 0, PIDs: limits.PIDs > 0, CPU: limits.CPU > 0}
	e.exposeIni(&a.facts, a.config, r)
	e.exposeNetwork(&a.facts.Network, a.config, links)
	a.facts.Network.Low = lowPublished(published)
	a.facts.Rights.Sharing = users[v.uid]
	if v.uid >= 0 && users[v.uid] > 0 {
		a.facts.Rights.Sharing--
	}
	a.facts.Lacks = e.lackingLimits()
	return a
}

// observable is the generation of the process that stands for the vassal; nil:
// none runs.
func (v *member) observable() *vassal.Generation {
	if v.state != Running || v.gen == nil {
		return nil
	}
	if v.crew == nil {
		return v.gen
	}
	for _, p := range v.crew.processes {
		if n := p.current(); n != nil && n.gen != nil && p.cron() == nil {
			return n.gen
		}
	}
	return nil
}

// lackingLimits are limits that cannot be in force on this machine.
func (e *Emperor) lackingLimits() (all []string) {
	if e.Controllers == nil {
		return nil
	}
	for _, option := range []string{vassal.LimitMemory, vassal.LimitPIDs, vassal.LimitCPU} {
		if why, ok := e.Controllers.Where(option); !ok {
			all = append(all, option+": "+why)
		}
	}
	return all
}

// exposeNetwork says whom the vassal can reach by its devices.
func (e *Emperor) exposeNetwork(f *exposure.Network, c *vassal.Config, links []vassal.Link) {
	f.Host = c.Network == vassal.HostNetwork
	f.Ruled = true
	for i := range e.Networks {
		if len(e.Networks[i].Addresses) > 0 {
			f.Choices = append(f.Choices, e.Networks[i].Device)
		}
	}
	open := func(name, kind string) { f.Neighbors, f.Kinds = append(f.Neighbors, name), append(f.Kinds, kind) }
	for i := range links {
		l := &links[i]
		name, isolated, chain := l.Network, true, []vassal.Rule(nil)
		switch {
		case l.Bridge != "":
			if name = l.Bridge; !l.Alone {
				open(name, "bridge")
			}
			f.Ruled = false
		case l.Foreign:
			name = l.Socket
			open(name, "foreign")
		case l.Network == "":
			continue
		default:
			isolated, chain = e.policyOf(l.Network)
		}
		left := undecided(chain, l)
		if !left.Denied {
			f.Anywhere = append(f.Anywhere, name)
		}
		switch {
		case l.Network == "" || left.Denied:
		case !isolated:
			open(name, "router")
		case left.Allowed:
			open(name, "rule")
		}
	}
}

// policyOf is what a router does before and after a device's own rules.
func (e *Emperor) policyOf(network string) (isolated bool, chain []vassal.Rule) {
	for i := range e.Networks {
		if n := &e.Networks[i]; n.Device == network {
			return n.Isolated, e.rulesOf(ruleOwner{Network: n.Device}, n.Rules).InForce()
		}
	}
	return false, nil
}

// undecided is what rules leave of both families that a device has.
func undecided(chain []vassal.Rule, l *vassal.Link) vassal.Undecided {
	v4 := vassal.WhatIsLeft(chain, l.Rules, false)
	if !slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return v4
	}
	v6 := vassal.WhatIsLeft(chain, l.Rules, true)
	return vassal.Undecided{Allowed: v4.Allowed || v6.Allowed, Denied: v4.Denied && v6.Denied}
}

// Security asks for what is true of all vassals that the caller may see.
func (c *Client) Security(ctx context.Context) ([]exposure.Facts, error) {
	var all []exposure.Facts
	return all, c.ask(ctx, http.MethodGet, "/security", &all)
}

// SecurityOf asks for what is true of one vassal.
func (c *Client) SecurityOf(ctx context.Context, name string) (exposure.Facts, error) {
	var f exposure.Facts
	return f, c.ask(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name)+"/security", &f)
}
