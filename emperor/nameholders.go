package emperor

import (
	"slices"
	"strings"
)

// judgeNames says which vassals have no name in DNS, since another has it whose own
// differs in capitals only: who had it first keeps it. All are sorted. What has been
// decided is kept with the leases; while inis are still to be read, nothing is.
func (e *Emperor) judgeNames(all []Named, whole bool) {
	alike := map[string][]int{}
	for i := range all {
		name := strings.ToLower(all[i].Name)
		alike[name] = append(alike[name], i)
	}
	before := e.nameHolders
	if whole {
		e.nameHolders = make(map[string]string, len(alike))
	}
	for name, some := range alike {
		holder := e.holderOfName(all, name, some, before[name], whole)
		if whole {
			e.nameHolders[name] = holder
			e.noteDispute(name, holder, len(some) > 1)
		}
		for _, i := range some {
			if all[i].Nameless = all[i].Name != holder; all[i].Nameless && whole && !e.nameless[all[i].Name] {
				e.Log.Warn("a vassal has no name in DNS: another one has it, whose own differs in capitals only", "vassal", all[i].Name, "name", name, "holder", holder)
			}
		}
	}
	if !whole {
		return
	}
	e.nameless = map[string]bool{}
	for _, n := range all {
		if n.Nameless {
			e.nameless[n.Name] = true
		}
	}
	for name := range e.Leases.file.Names { // of vassals that are gone
		if alike[name] == nil {
			e.noteDispute(name, "", false)
		}
	}
	if e.Leases.dirty {
		e.saveLeases()
	}
}

// holderOfName is the vassal that has a name: who had it, as long as he is there or
// may yet be; else the one that is written so, or the first.
func (e *Emperor) holderOfName(all []Named, name string, some []int, before string, whole bool) string {
	for _, had := range []string{before, e.Leases.file.Names[name]} {
		if had != "" && (!whole || slices.ContainsFunc(some, func(i int) bool { return all[i].Name == had })) {
			return had
		}
	}
	if slices.ContainsFunc(some, func(i int) bool { return all[i].Name == name }) {
		return name
	}
	return all[some[0]].Name
}

// noteDispute keeps who has a name that several want, for the next emperor.
func (e *Emperor) noteDispute(name, holder string, disputed bool) {
	names := e.Leases.file.Names
	switch {
	case disputed && names[name] != holder:
		if names == nil {
			names = map[string]string{}
			e.Leases.file.Names = names
		}
		names[name], e.Leases.dirty = holder, true
	case !disputed && names[name] != "":
		delete(names, name)
		e.Leases.dirty = true
	}
}
