package emperor

import (
	"errors"
	"time"

	"fiefdom/vassal"
)

// republish puts what a vassal publishes in force, beside the loop. Processes
// and connections by ports that stay published go on.
func (e *Emperor) republish(v *member) {
	if v.jail == nil || v.posting || v.config == nil || v.state != Running {
		return
	}
	r, bad := e.resolve(v.config)
	if bad != nil || r.key != v.key {
		return
	}
	if e.hasPublished(v.jail, r.published) {
		v.unposted = ""
		return
	}
	v.posting = true
	jail := v.jail
	e.jobs.Go(func() {
		err := e.makeBridges(r.bridges)
		if err == nil {
			err = e.publish(jail, r.published, r.ports)
		}
		// gofail: var portsChanged struct{}
		e.call(func() { e.republished(v, jail, err) })
	})
}

// republished takes the outcome of a change of what is published.
func (e *Emperor) republished(v *member, jail *vassal.Jail, err error) {
	v.posting = false
	if v.jail != jail || v.state != Running {
		return // the next start publishes
	}
	if err == nil {
		v.unposted = ""
		e.Log.Info("published ports changed", "vassal", v.name, "ports", publishTexts(v.config))
		e.republish(v) // there may be others by now
		return
	}
	if v.unposted != err.Error() {
		e.Log.Error("not published; what was published before goes on", "vassal", v.name, "err", err)
	}
	v.unposted = err.Error()
	if taken, ok := errors.AsType[*takenError](err); ok && taken.waits() || vassal.Passing(err) {
		time.AfterFunc(passingDelay(), func() {
			e.call(func() {
				if e.vassals[v.name] == v && v.unposted != "" && !e.ending {
					e.republish(v)
				}
			})
		})
	}
}

// hasPublished says whether a jail publishes these, and nothing else.
func (e *Emperor) hasPublished(jail *vassal.Jail, list []Published) bool {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	b := e.ports.of[jail.Name]
	return b == nil && len(list) == 0 || b.publishes(jail, list)
}

// publishTexts are the lines of what a vassal publishes.
func publishTexts(c *vassal.Config) []string {
	texts := []string{}
	for _, p := range c.Publish {
		texts = append(texts, p.String())
	}
	return texts
}
