package emperor

import (
	"context"
	"fmt"
)

// setDoor gives the vassal the door that its newest ini asks for. One at the
// same address stays as it is: nobody who waits there is sent away.
func (e *Emperor) setDoor(v *member, s *doorSpec) {
	v.wants = s
	if v.door != nil && s != nil && v.door.is(s) {
		d := v.door
		e.jobs.Go(func() {
			if err := d.change(s.rights); err != nil {
				e.Log.Warn("rights of the socket", "vassal", v.name, "err", err)
			}
		})
		return
	}
	e.shutDoor(v)
	if s != nil {
		e.hang(v, s)
	}
}

// hang gives the vassal a door that opens when it is needed.
func (e *Emperor) hang(v *member, s *doorSpec) {
	v.door = newDoor(*s, v.shut)
	e.keepDoor(v.name, v.door)
}

// shutDoor closes the vassal's door beside the loop.
func (e *Emperor) shutDoor(v *member) {
	d := v.door
	v.door = nil
	if d == nil {
		return
	}
	v.shut = d.gone
	e.jobs.Go(func() {
		if err := d.close(); err != nil {
			e.Log.Warn("close the socket", "vassal", v.name, "err", err)
		}
	})
}

// rest leaves a vassal without anything of its own but its record. Its door is
// closed too, so that clients are told at once that nobody is there; it is
// opened again when the vassal may be started again.
func (e *Emperor) rest(v *member) {
	v.begins = false
	e.closeJail(v)
	if v.outlawed {
		v.outlawed = false
		e.queue(v.file)
		e.expandQueued()
	}
	if v.door != nil {
		e.shutDoor(v)
		e.hang(v, v.wants)
	}
}

// doze waits for somebody at the vassal's door. The jail is given up: what
// sleeps should cost a descriptor and no more, and its addresses are reserved
// under its name whether there is a jail or not.
func (e *Emperor) doze(v *member) {
	e.closeJail(v)
	if v.vigil != nil {
		v.vigil()
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.vigil = cancel
	if v.locked { // it is tried again
		v.locked, v.err = false, ""
	}
	d := v.door
	e.Log.Info("vassal sleeps", "vassal", v.name, "socket", d.address.String())
	e.jobs.Go(func() {
		err := d.prepare()
		if err == nil {
			e.call(func() {
				if v.door == d {
					v.open = d
				}
			})
			err = d.await(ctx)
			// gofail: var doorKnocked struct{}
		}
		e.call(func() {
			if ctx.Err() != nil {
				return // it sleeps no more, or at another door
			}
			if err != nil {
				v.locked, v.err = true, fmt.Sprintf("on demand: %v", err)
				e.happen(v, failed)
				return
			}
			e.Log.Info("somebody is at the door; starting the vassal", "vassal", v.name)
			e.happen(v, knock)
		})
	})
}

// checkDoors opens doors anew whose files somebody removed while the vassal
// sleeps: a cleaner of old files must not put it to sleep for ever.
func (e *Emperor) checkDoors() {
	doors := map[*member]*door{}
	for _, v := range e.vassals {
		if v.state == Sleeping && v.open == v.door {
			doors[v] = v.door
		}
	}
	if len(doors) == 0 || e.checking { // a file system that does not answer is asked once
		return
	}
	e.checking = true
	e.jobs.Go(func() {
		defer e.call(func() { e.checking = false })
		for v, d := range doors {
			if !d.lost() {
				continue
			}
			e.call(func() {
				if v.state != Sleeping || v.door != d {
					return
				}
				e.Log.Warn("the socket's file is gone; making it again", "vassal", v.name, "socket", d.address.String())
				e.shutDoor(v)
				e.hang(v, v.wants)
				e.happen(v, lull)
			})
		}
	})
}

// asGood is what a good ini, seen or changed, is to the vassal: one that can
// be woken and does not run is not started for it.
func (v *member) asGood() event {
	switch {
	case v.door == nil, v.state == Starting, v.state == Running, v.state == Stopping && v.then == launch:
		return good
	}
	return lull
}

// asDue is what the end of a back-off is to the vassal.
func (v *member) asDue() event {
	if v.door != nil {
		return lull
	}
	return due
}

// asLeave is what the vassal's wish to be stopped is.
func (v *member) asLeave() event {
	if v.door != nil {
		return tired
	}
	return stop
}
