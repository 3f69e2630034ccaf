package emperor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"syscall"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// limitOptions are a vassal's, as the defaults of all.
var limitOptions = append(
	vassal.ResourceOptions(func(c *Config) *vassal.Resources { return &c.Resources }, ": of each whose ini does not say; in tyrant mode none can have more"),
	vassal.OOMScore(func(c *Config) **int { return &c.OOMScore }, func(*Config, ini.Pair) {}, ": of each vassal whose ini does not say; in tyrant mode none can have less"),
)

// limit adds to a vassal what it may use: as its ini says, else the emperor's.
func (e *Emperor) limit(r *resolved, c *vassal.Config) *ini.Error {
	b := e.boundsOf(c)
	at := func(option string) ini.Pos {
		for _, all := range []*vassal.Resources{&c.Resources, &e.Config.Resources} {
			if pos, ok := all.At[option]; ok {
				return pos
			}
		}
		if b.says(option) {
			return b.said[option][0].Pos
		}
		return ini.Pos{File: c.File}
	}
	defaults, most := b.ceilings(&e.Config.Resources)
	if option, own := c.Resources.Exceeds(&most); e.Config.Tyrant && option != "" {
		return &ini.Error{Pos: at(option), Message: fmt.Sprintf("%s = %s is more than the %s of the emperor's ini, which an owner can only lower", option, own, most.Text(option))}
	}
	resources := c.Resources.Over(&defaults)
	if option, err := e.Controllers.Lacks(&resources); err != nil {
		return &ini.Error{Pos: at(option), Message: err.Error()}
	}
	if len(c.Isolation.Cgroups) > 0 && e.Controllers != nil {
		if err := e.Controllers.Conflict(&resources, &c.Isolation); err != nil {
			return &ini.Error{Pos: c.Isolation.At["cgroup"], Message: err.Error()}
		}
	}
	resources.At = nil // where it stands changes no start
	r.resources = resources
	least := 0
	if e.Config.OOMScore != nil {
		least = *e.Config.OOMScore
	}
	own := c.Limits.OOMScore
	if e.Config.Tyrant && own != nil && *own < least {
		return &ini.Error{Pos: c.Isolation.At[vassal.OOMScoreOption], Message: fmt.Sprintf(
			"%s = %d is less than %d, and an owner can only have his vassals killed sooner", vassal.OOMScoreOption, *own, least)}
	}
	r.plan.Limits.OOMScore = cmp.Or(own, e.Config.OOMScore)
	return nil
}

// relimit puts the limits of a new ini in force for what runs, beside the loop.
// It says whether that is all there is to do; a vassal that needs a new
// generation anyway gets them with it.
func (e *Emperor) relimit(v *member) bool {
	if v.state != Running || v.gen == nil {
		return false
	}
	r, bad := e.resolve(v.config)
	if bad != nil || r.key != v.key || r.form() != v.form || r.resources.Same(&v.limits) {
		return false
	}
	only := sameElse(v.running, v.config)
	if !only && !e.reloadsItself(v) {
		return false
	}
	if v.limiting {
		return only // the change that is under way looks again when it is done
	}
	v.limiting = true
	g, config, resources := v.gen, v.config, r.resources
	e.jobs.Go(func() {
		err := g.Limit(resources)
		// gofail: var limitsChanged struct{}
		e.call(func() { e.relimited(v, g, config, resources, err) })
	})
	return only
}

// relimited takes the outcome of a change of limits.
func (e *Emperor) relimited(v *member, g *vassal.Generation, config *vassal.Config, resources vassal.Resources, err error) {
	if v.gen != g {
		return // the next generation has them already
	}
	v.limiting = false
	if v.state != Running {
		return
	}
	if err != nil {
		e.Log.Warn("limits cannot be changed while the vassal runs; starting it anew", "vassal", v.name, "err", err)
		v.readings++
		e.happen(v, v.asGood())
		return
	}
	e.Log.Info("limits changed", "vassal", v.name, "limits", limitsText(&resources))
	v.limits = resources
	if v.config != config && e.relimit(v) {
		return
	}
	v.running = v.config // what came meanwhile would have been more than limits, and a new generation
	v.readings++
}

// sameElse says whether two inis make the same vassal, but for its limits,
// its devices with their rules, and what it publishes, of which others know.
func sameElse(a, b *vassal.Config) bool { return reflect.DeepEqual(bare(a), bare(b)) }

// bare is an ini without its limits, its devices and what is published, which
// a jail has, and its places: what else makes a vassal.
func bare(c *vassal.Config) any {
	b, err := json.Marshal(c)
	if err != nil {
		return err // equal to no other
	}
	var all any
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	if top, ok := all.(map[string]any); ok {
		delete(top, "resources")
		delete(top, "devices")
		delete(top, "publish")
		delete(top, "network_pos")
	}
	withoutPlaces(all)
	return all
}

func withoutPlaces(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "pos")
		delete(v, "at")
		for _, inner := range v {
			withoutPlaces(inner)
		}
	case []any:
		for _, inner := range v {
			withoutPlaces(inner)
		}
	}
}

// limitsText is all limits as an ini has them.
func limitsText(r *vassal.Resources) []string {
	all := []string{}
	for _, option := range vassal.ResourceNames {
		if text := r.Text(option); text != "" {
			all = append(all, option+" = "+text)
		}
	}
	return all
}

// shortage is what a vassal has lost to the lack of memory.
type shortage struct {
	killed uint64    // processes, in all its generations
	last   time.Time // when
}

// shortageTime is how long after a kill for memory an end by KILL is taken for
// its consequence.
const shortageTime = 5 * time.Second

// outOfMemory takes the kernel's word that it has killed processes of a vassal.
func (e *Emperor) outOfMemory(name string, killed uint64) {
	e.call(func() {
		v := e.vassals[name]
		if v == nil {
			return
		}
		v.shortage.killed += killed
		v.shortage.last = time.Now()
		e.mark(v)
		e.Log.Error("out of memory", "vassal", name, "limit", v.memoryLimit(), "killed", killed)
	})
}

func (v *member) memoryLimit() string {
	if text := v.limits.Text(vassal.LimitMemory); text != "" {
		return vassal.LimitMemory + " = " + text
	}
	return "the machine's memory"
}

// startFailed says why a start failed, which the kernel may have ended.
func (v *member) startFailed(err error) string {
	if time.Since(v.shortage.last) < shortageTime {
		return err.Error() + ": out of memory (" + v.memoryLimit() + ")"
	}
	return err.Error()
}

// ended says how a process of the vassal ended, which the kernel may have
// killed for its memory.
func (v *member) ended(exit vassal.Exit) string {
	if exit.Signal == syscall.SIGKILL && time.Since(v.shortage.last) < shortageTime {
		return "killed: out of memory (" + v.memoryLimit() + ")"
	}
	return exit.String()
}
