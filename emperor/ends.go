package emperor

import (
	"time"

	"fiefdom/vassal"
)

// lastEnd is how a vassal ended last without being told to.
type lastEnd struct {
	why string
	at  time.Time
}

// reason says why the running app ended.
func (v *member) reason(exit vassal.Exit) string {
	switch {
	case v.crew != nil && v.crew.reason != "":
		return v.crew.reason
	case v.said.unwell != "":
		return exit.String() + " by the emperor: " + v.said.unwell
	case v.said.silent:
		return exit.String() + " by the emperor: no heartbeat (emperor-required-heartbeat)"
	case exile(v.gen, exit):
		return exit.String() + ": it went into exile; it is started again when its ini changes or by fiefdom start"
	case exit.Signal == 0 && exit.Code == vassal.ExitNoApp && v.running != nil && len(v.running.App) > 0:
		return exit.String() + ": the uwsgi could not load its app; see fiefdom logs " + v.name
	}
	return v.ended(exit)
}

// exile says whether the app does not want to be started again.
func exile(g *vassal.Generation, exit vassal.Exit) bool {
	return g != nil && g.Channel != nil && exit.Signal == 0 && exit.Code == vassal.ExitExile
}
