package emperor

import (
	"time"

	"fiefdom/vassal"
)

// Lost takes the router's word that a vassal's device is gone (a root vassal
// deleted it): without network the app only looks alive, so it gets a new jail.
func (e *Emperor) Lost(name, why string) {
	e.call(func() {
		if v := e.vassals[name]; v != nil {
			e.lost(v, why, lostChecks)
		}
	})
}

// The router's word and the end of the life line come by different ways, in
// any order: the line is looked at for a moment. One that does not end is that
// of a jail which came after the one that was lost.
const (
	lostChecks   = 20
	lostInterval = 50 * time.Millisecond
)

func (e *Emperor) lost(v *member, why string, checks int) {
	switch {
	case v.state == Starting:
		v.lost = why // the jail is with the start; it is looked at once that is over
	case v.state != Running || v.jail == nil:
	case !v.jail.Lost():
		if checks > 0 {
			time.AfterFunc(lostInterval, func() {
				e.call(func() {
					if e.vassals[v.name] == v {
						e.lost(v, why, checks-1)
					}
				})
			})
		}
	default:
		e.Log.Error("device lost; starting the vassal in a new jail", "vassal", v.name, "reason", why)
		v.key = ""
		v.gen.Kill()
	}
}

// unpluggedAgain is when a vassal that starts is looked at again.
const unpluggedAgain = time.Second

// Unplugged takes the kernel's word that a vassal's host end may have left its
// bridge. It is put back if it is still there; else the vassal starts in a new jail.
func (e *Emperor) Unplugged(name string) {
	e.call(func() {
		v := e.vassals[name]
		switch {
		case v == nil || e.ending:
		case v.state == Starting:
			time.AfterFunc(unpluggedAgain, func() { e.Unplugged(name) })
		case v.state == Running && v.jail != nil:
			jail := v.jail
			e.jobs.Go(func() { e.plugAgain(name, jail) })
		}
	})
}

func (e *Emperor) plugAgain(name string, jail *vassal.Jail) {
	if !jail.Lost() {
		return
	}
	err := jail.Plug(e.plugger())
	if err == nil && !jail.Lost() {
		e.Log.Warn("put a device back into its bridge, which somebody has taken out", "vassal", name)
		return
	}
	why := "its device in the bridge is gone"
	if err != nil {
		why = err.Error()
	}
	e.Lost(name, why)
}
