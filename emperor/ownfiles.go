package emperor

import (
	"context"

	"fiefdom/vassal"
)

// KeepFiles gives the vassals that run their own /etc/resolv.conf and /etc/hosts
// again, where somebody has replaced the host's and so taken theirs away.
func (e *Emperor) KeepFiles(ctx context.Context) {
	e.make()
	look := func() {
		all := map[string]*vassal.Generation{}
		for name, v := range e.vassals {
			if v.gen != nil && !e.ending {
				all[name] = v.gen
			}
		}
		if len(all) == 0 {
			return
		}
		e.jobs.Go(func() {
			for name, gen := range all {
				if err := gen.KeepFiles(); err != nil {
					e.Log.Warn("the vassal sees a file of the host's in place of its own", "vassal", name, "err", err)
				}
			}
		})
	}
	select {
	case e.calls <- look:
	case <-e.stopped:
	case <-ctx.Done():
	}
}
