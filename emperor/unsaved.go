package emperor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/renameio/v2"

	"fiefdom/vassal"
)

// rulesRecord is the file of the runtime directory that has the rules which were
// changed and are in no file: they outlive the emperor's process, and go when he
// stops.
const rulesRecord = "rules"

// ruleOwner is whose rules they are: a network's, or those of a vassal's device.
type ruleOwner struct {
	Network string `json:"network,omitempty"`
	Vassal  string `json:"vassal,omitempty"`
	Device  string `json:"device,omitempty"`
}

func (o ruleOwner) words() vassal.RuleWords { return vassal.RuleWords(o.Vassal != "") }

// attrs say in a log which rule it is.
func (o ruleOwner) attrs(r *vassal.Rule) []any {
	attrs := []any{"network", o.Network}
	if o.Vassal != "" {
		attrs = []any{"vassal", o.Vassal, "dev", o.Device}
	}
	return append(attrs, "chain", r.Direction.String(), "rule", o.words().Text(r))
}

// unsaved are changes of rules that no file has, or has not when it was read.
type unsaved struct {
	Owner ruleOwner    `json:"owner"`
	Edits vassal.Edits `json:"edits"`
	Wrote bool         `json:"wrote,omitempty"` // we have changed the file, so its next reading is no reload
}

// LoadRules reads what a former emperor of the instance has noted of unsaved
// rules. Call it before anything asks for rules.
func (e *Emperor) LoadRules() error {
	b, err := os.ReadFile(e.Instance.Path(rulesRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []unsaved
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return fmt.Errorf("unsaved rules %s: %w; remove the file to go on without them", e.Instance.Path(rulesRecord), err)
	}
	e.edits = map[ruleOwner]unsaved{}
	for _, u := range all {
		e.edits[u.Owner] = u
	}
	for o := range e.edits {
		if o.Network != "" && !slices.ContainsFunc(e.Networks, func(n Network) bool { return n.Device == o.Network }) {
			e.reread(o, nil, false)
		}
	}
	for i := range e.Networks {
		n := &e.Networks[i]
		e.reread(ruleOwner{Network: n.Device}, n.Rules, true)
	}
	return nil
}

// setEdits notes the rules of somebody, first on record.
func (e *Emperor) setEdits(u unsaved) error {
	next := map[ruleOwner]unsaved{u.Owner: u}
	for owner, other := range e.edits {
		if owner != u.Owner {
			next[owner] = other
		}
	}
	if !u.Edits.Unsaved() && !u.Wrote {
		delete(next, u.Owner)
	}
	if err := e.recordRules(next); err != nil {
		return err
	}
	e.edits = next
	return nil
}

func (e *Emperor) recordRules(edits map[ruleOwner]unsaved) error {
	path := e.Instance.Path(rulesRecord)
	if len(edits) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	all := []unsaved{}
	for _, u := range edits {
		all = append(all, u)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	const mode = 0o600
	return renameio.WriteFile(path, b, mode)
}

// rulesOf are somebody's rules with what was changed, where the files have those
// that are given.
func (e *Emperor) rulesOf(o ruleOwner, files []vassal.Rule) vassal.Edits {
	if u, ok := e.edits[o]; ok {
		if u.Wrote {
			return u.Edits // what the files will say when they are read
		}
		if edits, ok := u.Edits.Over(files); ok {
			return edits
		}
	}
	return vassal.Unedited(files)
}

// reread is told that a file was read which has somebody's rules. Its word
// counts: what was changed and is not in it is gone. It is not if the emperor is
// new, or has changed the file himself, and it says what it said. ours says that he
// has.
func (e *Emperor) reread(o ruleOwner, files []vassal.Rule, first bool) (ours bool) {
	u, ok := e.edits[o]
	if !ok {
		return false
	}
	edits, fits := u.Edits.Over(files)
	ours = fits && u.Wrote
	if fits && (first || u.Wrote) {
		u.Edits, u.Wrote = edits, false
	} else {
		if u.Edits.Unsaved() {
			e.tellLost(o, u.Edits)
		}
		u.Edits, u.Wrote = nil, false
	}
	if err := e.setEdits(u); err != nil {
		e.Log.Error("unsaved rules are not on record", "err", err)
	}
	return ours
}

// tellLost tells of unsaved rules that are gone.
func (e *Emperor) tellLost(o ruleOwner, edits vassal.Edits) {
	for i := range edits {
		x := &edits[i]
		what := "added"
		switch {
		case x.Deleted:
			what = "deleted"
		case !x.Added:
			continue
		}
		e.Log.Warn("unsaved change of a rule is gone: its file was read again", append(o.attrs(&x.Rule), "was", what)...)
	}
}

// rereadVassal is reread for all devices of a vassal.
func (e *Emperor) rereadVassal(v *member, c *vassal.Config) (ours bool) {
	for o := range e.edits {
		if o.Vassal != v.name {
			continue
		}
		var files []vassal.Rule
		specs := e.devices(c)
		if i := slices.IndexFunc(specs, func(d vassal.DeviceSpec) bool { return d.Name == o.Device }); i >= 0 {
			files = specs[i].Rules
		}
		ours = e.reread(o, files, v.config == nil || v.adopted || v.begins) || ours
	}
	return ours
}

// forgetRules drops the unsaved rules of a vassal that is gone.
func (e *Emperor) forgetRules(name string) {
	for o, u := range e.edits {
		if o.Vassal != name {
			continue
		}
		u.Edits, u.Wrote = nil, false
		if err := e.setEdits(u); err != nil {
			e.Log.Error("unsaved rules are not on record", "err", err)
		}
	}
}

// RulesOf are the rules of a network that count, for its start.
func (e *Emperor) RulesOf(network string) []vassal.Rule {
	for i := range e.Networks {
		if n := &e.Networks[i]; n.Device == network {
			return e.rulesOf(ruleOwner{Network: network}, n.Rules).InForce()
		}
	}
	return nil
}
