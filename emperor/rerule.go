package emperor

import (
	"slices"
	"time"

	"fiefdom/vassal"
)

// rerule puts the rules that a vassal's devices are to have in force, beside the
// loop: in its jail, and in the router. Packets, connections and processes go on.
func (e *Emperor) rerule(v *member) {
	if v.ruling {
		return
	}
	links, differ := e.rulesDiffer(v)
	if !differ {
		v.unruled = ""
		return
	}
	v.ruling = true
	jail := v.jail
	e.jobs.Go(func() {
		err := jail.SetRules(links)
		e.keepJail(jail)
		e.call(func() { e.ruled(v, jail, err) })
	})
}

// rulesDiffer says whether a vassal's devices have, or may have, other rules than
// they are to have.
func (e *Emperor) rulesDiffer(v *member) ([]vassal.Link, bool) {
	if v.jail == nil || v.config == nil {
		return nil, false
	}
	r, bad := e.resolve(v.config)
	if bad != nil || r.key != v.key || v.jail.HasRules(r.links) {
		return nil, false
	}
	return r.links, true
}

// ruled takes the outcome of a change of rules.
func (e *Emperor) ruled(v *member, jail *vassal.Jail, err error) {
	v.ruling = false
	defer v.settle()
	if err != nil {
		if v.unruled != err.Error() {
			v.unruled = err.Error()
			e.Log.Error("the router does not take the rules; those of before go on", "vassal", v.name, "err", err)
		}
		if vassal.Passing(err) {
			time.AfterFunc(passingDelay(), func() { e.call(func() { e.reruleAgain(v, jail) }) })
		}
		return
	}
	v.unruled = ""
	if v.jail == jail {
		e.Log.Info("rules changed", "vassal", v.name)
		e.rerule(v) // there may be others by now
	}
}

// reruleAgain asks a router that did not answer once more: nobody knows which rules
// it has, whatever they are to be by now.
func (e *Emperor) reruleAgain(v *member, jail *vassal.Jail) {
	if e.vassals[v.name] == v && v.jail == jail && !e.ending {
		e.rerule(v)
	}
}

// reruled says whether the rules of its devices, or what it publishes, changed
// in the ini of a vassal that runs, and nothing that needs more than to be put in force.
func (e *Emperor) reruled(v *member) bool {
	if v.state != Running || v.gen == nil ||
		slices.EqualFunc(v.running.Devices, v.config.Devices, sameWords) && vassal.SamePublish(v.running.Publish, v.config.Publish) {
		return false
	}
	r, bad := e.resolve(v.config)
	if bad != nil || r.key != v.key || r.form() != v.form || !sameElse(v.running, v.config) {
		return false
	}
	v.running = v.config
	v.readings++
	return true
}

// sameWords says whether the rules of two devices say the same.
func sameWords(a, b vassal.DeviceSpec) bool {
	return slices.EqualFunc(a.Rules, b.Rules, func(x, y vassal.Rule) bool { return x.Text() == y.Text() })
}
