package emperor

import (
	"slices"
	"time"
)

// touchInterval is how often the files of attach-daemon2's touch are looked at.
const touchInterval = time.Second

// watchTouches restarts a daemon when one of its files is touched. The files
// are the vassal's: looking at them may take long, and is not the loop's.
func (e *Emperor) watchTouches(v *member, p *process) {
	c := v.crew
	if p.spec == nil || len(p.spec.Touch) == 0 {
		return
	}
	e.jobs.Go(func() {
		look := time.NewTicker(touchInterval)
		defer look.Stop()
		seen := touches(c, p.spec.Touch)
		for {
			select {
			case <-c.over:
				return
			case <-look.C:
			}
			now := touches(c, p.spec.Touch)
			if slices.Equal(now, seen) {
				continue
			}
			seen = now
			e.call(func() {
				if v.crew == c && !c.ending {
					e.touched(v, p)
				}
			})
		}
	})
}

func touches(c *crew, files []string) []int64 {
	var at []int64
	for _, f := range files {
		at = append(at, c.ground.Touched(f))
	}
	return at
}

// touched restarts a daemon; one that is down is started at once.
func (e *Emperor) touched(v *member, p *process) {
	e.Log.Info("file touched; restarting the process", "vassal", v.name, "process", p.name())
	p.backoff.clear()
	if p.state == Backoff {
		p.timer.Stop()
		e.startProcess(v, p)
		return
	}
	for _, n := range p.runs {
		n.again = true
		e.askToStop(v, p, n, false)
		gen := n.gen
		if gen != nil && n.timer == nil {
			n.timer = time.AfterFunc(e.mercy(v.running), gen.Kill)
		}
	}
}
