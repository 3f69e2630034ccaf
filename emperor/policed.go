package emperor

import (
	"fmt"
	"maps"
	"slices"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// claimFor claims what an ini declares, and a place among its owner's vassals.
func (e *Emperor) claimFor(c *vassal.Config) ini.Errors {
	if err := e.crowded(c); err != nil {
		return ini.Errors{*err}
	}
	if err := e.hoards(c); err != nil {
		return ini.Errors{*err}
	}
	return e.claims.Add(c)
}

// maxOwnerPorts is how many of the host's ports an owner may publish in tyrant mode.
// The host's own programs can take none of them for their connections, and each is a
// descriptor of the emperor's.
const maxOwnerPorts = 1024

// hoards says that an owner's vassals would publish too much together.
func (e *Emperor) hoards(c *vassal.Config) *ini.Error {
	if !e.Config.Tyrant || len(c.Publish) == 0 {
		return nil
	}
	mine, others := countPorts(c.Publish), 0
	for name, uid := range e.claims.owners {
		if uid == c.UID.ID && name != c.Name {
			others += countPorts(e.claims.ports[name])
		}
	}
	if mine+others <= maxOwnerPorts {
		return nil
	}
	return &ini.Error{Pos: c.Publish[0].Pos, Message: fmt.Sprintf(
		"publish: %d ports, and the other vassals of uid %d publish %d; an owner may publish %d: publish fewer here or there", mine, c.UID.ID, others, maxOwnerPorts)}
}

func countPorts(all []vassal.Publish) (n int) {
	for _, p := range all {
		n += int(p.Last-p.First) + 1
	}
	return n
}

// crowded says that the owner has as many vassals as he may have. Those count
// whose inis are good; who came first stays.
func (e *Emperor) crowded(c *vassal.Config) *ini.Error {
	b := e.boundsOf(c)
	if !b.says("vassals") {
		return nil
	}
	others := 0
	for name, uid := range e.claims.owners {
		if uid == c.UID.ID && name != c.Name {
			others++
		}
	}
	if others < b.vassals {
		return nil
	}
	return &ini.Error{Pos: ini.Pos{File: c.File}, Message: b.beyond("vassals", fmt.Sprintf("vassal number %d", others+1))}
}

// PolicyLine is a line of the operator's policy, for those whom it bounds.
type PolicyLine struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Section string `json:"section"`
	File    string `json:"file"`
	Line    int    `json:"line"`
}

// policyLines are those that bound an owner.
func (e *Emperor) policyLines(o owner) (all []PolicyLine) {
	if !e.Config.Tyrant {
		return nil
	}
	for _, l := range e.Config.Policy.of(o).lines() {
		all = append(all, PolicyLine{l.Key, l.Value, l.section, l.Pos.File, l.Pos.Line})
	}
	return all
}

// rereadPolicy reads the policy anew; nil: there is none, or it is bad.
func (c *Config) rereadPolicy(networks []Network) (*Policy, ini.Errors) {
	fresh := Config{Tyrant: c.Tyrant, PolicyFile: c.PolicyFile, PolicyPos: c.PolicyPos, Bridges: c.Bridges}
	errs := fresh.ReadPolicy(networks)
	return fresh.Policy, errs
}

// ReloadPolicy reads the policy again and has it count, if it is good. Vassals
// that are within it go on as they are.
func (e *Emperor) ReloadPolicy() {
	policy, errs := e.Config.rereadPolicy(e.Networks)
	e.call(func() { e.takePolicy(policy, errs) })
}

// takePolicy has a policy that was read anew count, if it is good.
func (e *Emperor) takePolicy(p *Policy, errs ini.Errors) {
	if e.Config.PolicyFile == "" {
		return
	}
	if p == nil {
		e.Log.Error("the policy cannot be read again; going on with the one in force", "err", errs)
		return
	}
	e.Config.Policy = p
	e.enforcePolicy()
}

// enforcePolicy stops all vassals that are beyond the policy, as adopted or as it
// has become. Their inis are invalid until they, or the policy, change. Who asks for
// no more than he may have goes on, with the limits of now as soon as his ini has been read.
func (e *Emperor) enforcePolicy() {
	if !e.Config.Tyrant || e.Config.PolicyFile == "" {
		return
	}
	clear(e.claims.owners)
	for _, name := range slices.Sorted(maps.Keys(e.vassals)) {
		v := e.vassals[name]
		if v.config == nil || v.dethroned || v.removed {
			continue
		}
		errs := e.policed(v.config)
		if err := e.crowded(v.config); err != nil {
			errs = append(errs, *err)
		}
		switch {
		case errs.Failed():
			e.outlaw(v, errs)
			continue
		case v.gen != nil && v.running != v.config && e.policed(v.running).Failed(): // it has not taken its newest ini
			e.happen(v, restart)
		}
		e.claims.owners[name] = v.config.UID.ID
	}
}

// outlaw stops a vassal that is beyond the policy, and has its ini read once that
// is done.
func (e *Emperor) outlaw(v *member, errs ini.Errors) {
	why := failures(errs)
	e.Log.Warn("vassal is beyond the policy; stopping it", "vassal", v.name, "err", why)
	e.claims.Remove(v.name)
	v.config, v.err, v.unfit = nil, why, why
	defer e.mark(v)
	switch {
	case v.leaving(), v.state == Stopped && !v.begins, v.state == Invalid:
		return
	case v.state == Stopping && v.then == rest:
		return // an operator's word, which stands
	}
	v.outlawed = true
	e.happen(v, stop)
}
