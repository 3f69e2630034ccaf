package emperor

import (
	"errors"
	"slices"
	"strings"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// rescan compares the inis with what the loop knows of them.
func (e *Emperor) rescan() {
	if e.ending {
		return
	}
	if e.Leases.unsaved {
		e.saveLeases()
	}
	seen := e.Config.scan(e.holders())
	if err := errors.Join(seen.errs...); err != nil && err.Error() != e.complaint {
		e.complaint = err.Error()
		e.Log.Warn("scan", "err", err)
	} else if err == nil {
		e.complaint = ""
	}
	freed := false
	for _, v := range e.vassals {
		if !v.removed && seen.missing(v.file) {
			e.remove(v)
			freed = true
		}
	}
	for _, name := range seen.order {
		f := seen.found[name]
		v := e.vassals[name]
		switch {
		case v == nil:
			e.newMember(f)
			e.Log.Info("vassal found", "vassal", name, "file", f.path)
			e.queue(f)
		case e.Config.Tyrant && (v.file.owner != f.owner || f.refused != ""):
			if v.removed || v.file != f {
				v.removed = false
				e.dethrone(v, f)
				freed = true
			}
		case v.removed || v.file != f:
			if !v.removed && v.file.id != (fileID{}) {
				e.Log.Info("ini changed", "vassal", name, "file", f.path)
			}
			v.removed, v.adopted = false, false
			v.file = f
			e.Journal.own(name, f.owner.uid)
			e.queue(f)
		}
	}
	if freed {
		e.claims.freed = true // leases, too
		e.reserve()
	}
	e.readBlocked(func(*member) bool { return e.claims.freed })
	e.expandQueued()
	e.checkDoors()
}

// holders are the owners of the vassals that there are, in tyrant mode.
func (e *Emperor) holders() map[string]owner {
	if !e.Config.Tyrant {
		return nil
	}
	all := make(map[string]owner, len(e.vassals))
	for name, v := range e.vassals {
		all[name] = v.file.owner
	}
	return all
}

func (e *Emperor) remove(v *member) {
	e.Log.Info("ini removed", "vassal", v.name, "file", v.file.path)
	v.removed = true
	e.claims.Remove(v.name)
	e.happen(v, gone)
}

// Reload reads every ini again and restarts its vassal, as SIGHUP does.
func (e *Emperor) Reload() {
	policy, errs := e.Config.rereadPolicy(e.Networks)
	e.call(func() {
		e.Log.Info("reloading all vassals")
		e.takePolicy(policy, errs)
		for _, v := range e.vassals {
			e.queue(v.file)
		}
		e.expandQueued()
	})
}

// queue has a file expanded; one that waits already is taken as it is now.
func (e *Emperor) queue(f iniFile) {
	waiting := e.queued[f.owner]
	if i := slices.IndexFunc(waiting, func(w iniFile) bool { return w.name == f.name }); i >= 0 {
		waiting[i] = f
		return
	}
	e.queued[f.owner] = append(waiting, f)
}

// expandQueued starts an expander for each owner that has files waiting and
// none running.
func (e *Emperor) expandQueued() {
	for o, files := range e.queued {
		if e.expanding[o] || e.ending {
			continue
		}
		batch := files[:min(len(files), expandBatch)]
		if e.queued[o] = files[len(batch):]; len(e.queued[o]) == 0 {
			delete(e.queued, o)
		}
		e.expanding[o] = true
		e.jobs.Go(func() {
			got := e.expand(o, batch)
			e.call(func() {
				delete(e.expanding, o)
				e.expanded(got)
				e.expandQueued()
			})
		})
	}
}

// expanded takes the expander's word about some files. All claims are made
// before anything is leased, and the router is told before the first of their
// vassals starts.
func (e *Emperor) expanded(got []expansion) {
	current, fresh := e.admitAll(got)
	for _, x := range current {
		defer e.vassals[x.Name].settle()
	}
	e.claimRead(current, fresh)
	var fine []*member
	ours := map[*member]bool{} // whose ini we have changed ourselves
	for _, x := range current {
		v := e.vassals[x.Name]
		var r *resolved
		if !x.Errors.Failed() {
			var err *ini.Error
			if r, err = e.resolve(x.Config); err != nil {
				x.Errors = append(x.Errors, *err)
			} else {
				x.Errors = append(x.Errors, unlistened(x.Config, r)...)
			}
		}
		e.warn(v, x.Errors)
		if x.Errors.Failed() {
			e.refuse(v, x)
			continue
		}
		ours[v] = e.take(v, x.Config)
		e.setDoor(v, r.door)
		fine = append(fine, v)
	}
	e.settleLeases()
	e.reserve()
	for _, v := range fine {
		e.comply(v, ours[v])
	}
}

// admitAll leaves what is said of the vassals' newest inis, each checked against
// the instance's policy. One that could not be read is tried again later. Fresh are those that were
// not read before.
func (e *Emperor) admitAll(got []expansion) (current []*expansion, fresh map[*expansion]bool) {
	fresh = map[*expansion]bool{}
	for i := range got {
		x := &got[i]
		v := e.vassals[x.Name]
		if v == nil || v.removed || v.dethroned || v.file != x.file || e.ending {
			continue // overtaken by another scan: another file, or another owner, whose word this is not
		}
		v.again = nil // this was it
		if x.later {
			e.expandLater(v, failures(x.Errors))
			continue
		}
		fresh[x] = v.read != x.file
		v.read = x.file
		x.Errors = append(x.Errors, e.admit(v, x)...)
		current = append(current, x)
	}
	return current, fresh
}

// refuse tells that a vassal's ini is bad; what runs goes on.
func (e *Emperor) refuse(v *member, x *expansion) {
	if what := failures(x.Errors); what != v.err {
		v.err = what
		e.Log.Error("bad ini", "vassal", v.name, "err", v.err)
	}
	v.unfit = v.err
	if x.Unrest {
		e.lookAgain(v)
	}
	v.adopted = false
	e.happen(v, bad)
}

// take gives a vassal its newest good ini; ours says that we have changed it
// ourselves.
func (e *Emperor) take(v *member, c *vassal.Config) (ours bool) {
	if len(c.Needless) > 0 {
		e.Log.Info("options that do nothing for a command", "vassal", v.name, "options", strings.Join(c.Needless, " "))
	}
	ours = e.rereadVassal(v, c)
	v.config, v.unfit = c, ""
	if v.err == v.unread {
		v.err = "" // it has been read by now
	}
	v.unread = ""
	if !v.adopted || v.begins {
		v.err = ""
		v.backoff.clear()
	}
	return ours
}

// comply does what a vassal's newest ini asks for, without a reload where that can
// be. One that we have changed ourselves is no reason to start.
func (e *Emperor) comply(v *member, ours bool) {
	switch e.mark(v); {
	case ours && v.state == Stopped: // nobody asked for a start
	case e.unchanged(v):
		e.relimit(v) // it may have changed while there was no emperor
	case e.relimit(v):
	case e.reruled(v):
	case e.reloadsItself(v):
		e.happen(v, same)
	default:
		v.readings++
		e.happen(v, v.asGood())
	}
	e.rerule(v)
	e.republish(v)
}

// warn tells what is doubtful about a vassal's ini.
func (e *Emperor) warn(v *member, errs ini.Errors) {
	v.warnings = nil
	for _, err := range errs {
		if err.Warning {
			v.warnings = append(v.warnings, err.Error())
			e.Log.Warn(err.Error(), "vassal", v.name)
		}
	}
}

// expandLater has an ini read once the emperor can. Until then all stays as it is.
func (e *Emperor) expandLater(v *member, why string) {
	if v.err != why {
		v.err, v.unread = why, why
		e.Log.Warn("ini not read yet", "vassal", v.name, "err", why)
	}
	file := v.file
	var again *time.Timer
	again = time.AfterFunc(passingDelay(), func() {
		e.call(func() {
			if v.again == again && e.vassals[v.name] == v && v.file == file && !e.ending {
				e.queue(file)
				e.expandQueued()
			}
		})
	})
	v.again = again
}

// unrestPause is before an ini that somebody was writing is looked at again.
const unrestPause = 500 * time.Millisecond

// lookAgain has the next scan take an ini for changed.
func (e *Emperor) lookAgain(v *member) {
	v.file.id = fileID{}
	if e.unrest { // one scan for all of them: an owner may write many
		return
	}
	e.unrest = true
	time.AfterFunc(unrestPause, func() {
		e.call(func() {
			e.unrest = false
			e.rescan()
		})
	})
}

// failures are the errors, without the warnings, one a line.
func failures(errs ini.Errors) string {
	var only ini.Errors
	for _, err := range errs {
		if !err.Warning {
			only = append(only, err)
		}
	}
	return only.Error()
}
