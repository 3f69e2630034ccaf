package emperor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"fiefdom/vassal"
)

// RuleChain is the rules of one direction: of a network, or of a vassal's device.
// The schema is stable: fields are only added.
type RuleChain struct {
	Network   string       `json:"network,omitempty"` // of a vassal: that its device is in
	Vassal    string       `json:"vassal,omitempty"`  // empty: the chain is the network's
	Device    string       `json:"device,omitempty"`
	Direction string       `json:"direction"`
	Rules     []RuleStatus `json:"rules"`
	Then      string       `json:"then,omitempty"`  // what comes after the rules: isolate
	Error     string       `json:"error,omitempty"` // why the router may have other rules than these
}

// RuleStatus is a rule of a chain.
type RuleStatus struct {
	Number  int     `json:"number,omitempty"` // from 1; 0: it is not in force
	Text    string  `json:"text"`             // without the direction, as it stands in an ini
	File    string  `json:"file,omitempty"`   // empty: it is in no file
	Line    int     `json:"line,omitempty"`
	Hits    *uint64 `json:"hits,omitempty"`    // how often it decided; nil: nobody counts
	Unsaved string  `json:"unsaved,omitempty"` // added or deleted, and no file says so
}

// CountedChain is what the router has of a chain, and what it counted.
type CountedChain struct {
	Network, Vassal string
	Direction       vassal.Direction
	Rules           []vassal.Rule
	Hits            []uint64
}

// ruleTarget is somebody whose rules can be looked at and changed.
type ruleTarget struct {
	ruleOwner
	network *Network // of a device: that it is in; nil: a foreign router's, or none
	files   []vassal.Rule
	edits   vassal.Edits
	member  *member           // of a device
	spec    vassal.DeviceSpec // likewise
}

// noSuchRules says that nobody's rules are meant.
type noSuchRules struct{ error }

// targets are those of a name: the networks and vassals, all of them without
// one. Of a vassal, device says which.
func (e *Emperor) targets(name, device string) ([]ruleTarget, error) {
	kind, plain := "", name
	for _, k := range []string{"network", "vassal"} {
		if rest, ok := strings.CutPrefix(name, k+":"); ok {
			kind, plain = k, rest
		}
	}
	var all []ruleTarget
	found := 0
	for i := range e.Networks {
		n := &e.Networks[i]
		if kind == "vassal" || plain != "" && plain != n.Device {
			continue
		}
		found++
		o := ruleOwner{Network: n.Device}
		all = append(all, ruleTarget{ruleOwner: o, network: n, files: n.Rules, edits: e.rulesOf(o, n.Rules)})
	}
	names := []string{}
	for vassal := range e.vassals {
		if kind != "network" && (plain == "" || plain == vassal) {
			names = append(names, vassal)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		found++
		all = append(all, e.deviceTargets(e.vassals[name], device)...)
	}
	switch {
	case plain == "":
		return all, nil
	case found == 0:
		return nil, noSuchRules{fmt.Errorf("no network and no vassal %q (networks are: %s)", name, e.networkNames())}
	case found > 1:
		return nil, fmt.Errorf("%q is a network and a vassal; write network:%[1]s or vassal:%[1]s", name)
	case len(all) == 0:
		return nil, fmt.Errorf("vassal %q has no device%s whose packets pass a router", plain, strings.TrimRight(" "+device, " "))
	}
	return all, nil
}

func (e *Emperor) networkNames() string {
	names := []string{}
	for _, n := range e.Networks {
		names = append(names, n.Device)
	}
	return cmp.Or(strings.Join(names, " "), "none")
}

// deviceTargets are the devices of a vassal that join a router, or the one that
// is named.
func (e *Emperor) deviceTargets(v *member, device string) (all []ruleTarget) {
	if v.config == nil {
		return nil // its ini was never good
	}
	for _, d := range e.devices(v.config) {
		n, err := e.networkOf(d)
		if err != nil || n == nil && d.Socket == "" || device != "" && d.Name != device {
			continue
		}
		o := ruleOwner{Vassal: v.name, Device: d.Name}
		all = append(all, ruleTarget{ruleOwner: o, network: n, files: d.Rules, edits: e.rulesOf(o, d.Rules), member: v, spec: d})
	}
	return all
}

// chains are the target's, with what the router has counted.
func (t *ruleTarget) chains(counted []CountedChain) (all []RuleChain) {
	for _, dir := range vassal.Directions {
		c := RuleChain{Vassal: t.Vassal, Device: t.Device, Direction: dir.String(), Rules: []RuleStatus{}}
		if t.network != nil {
			c.Network = t.network.Device
			if t.Vassal == "" && dir.String() == "out" && t.network.Isolated {
				c.Then = "isolate"
			}
		}
		if t.member != nil {
			c.Error = t.member.unruled
		}
		hits := t.hits(dir, counted)
		for i := range t.edits {
			x := &t.edits[i]
			if x.Direction != dir {
				continue
			}
			s := RuleStatus{Text: t.words().Text(&x.Rule)}
			if !x.Added {
				s.File, s.Line = x.Rule.Rule.File, x.Rule.Rule.Line
			}
			switch {
			case x.Deleted:
				s.Unsaved = "deleted"
			case x.Added:
				s.Unsaved = "added"
			}
			if !x.Deleted {
				s.Number = 1
				for _, before := range c.Rules {
					s.Number = max(s.Number, before.Number+1)
				}
				if s.Number <= len(hits) {
					s.Hits = &hits[s.Number-1]
				}
			}
			c.Rules = append(c.Rules, s)
		}
		all = append(all, c)
	}
	return all
}

// hits are what the router counted for the rules in force; nil where it has
// others: they are on their way.
func (t *ruleTarget) hits(dir vassal.Direction, counted []CountedChain) []uint64 {
	if t.network == nil {
		return nil
	}
	var own []vassal.Rule
	for _, r := range t.edits.InForce() {
		if r.Direction == dir {
			own = append(own, r)
		}
	}
	for _, c := range counted {
		if c.Network == t.network.Device && c.Vassal == t.Vassal && c.Direction == dir && vassal.SameRules(withoutTargets(own), c.Rules) {
			return slices.Clone(c.Hits)
		}
	}
	return nil
}

// withoutTargets are rules as the router tells them.
func withoutTargets(rules []vassal.Rule) []vassal.Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i] = vassal.Rule{Direction: rules[i].Direction, Rule: rules[i].Rule}
	}
	return rules
}

// apiRules answers with the chains in force. An owner sees his vassals' own.
func (e *Emperor) apiRules(w http.ResponseWriter, r *http.Request) {
	sees := e.sees(r)
	query := r.URL.Query()
	of := query.Get("of")
	all, err := e.listRules(r.Context(), of, query.Get("device"))
	if err != nil {
		if !sees(strings.TrimPrefix(of, "vassal:")) { // who may not see a vassal does not learn whether there is one
			err = noSuchRules{fmt.Errorf("no network and no vassal %q", of)}
		}
		refuseRules(w, err)
		return
	}
	visible := slices.DeleteFunc(all, func(c RuleChain) bool { return !sees(c.Vassal) })
	if len(visible) == 0 && of != "" {
		refuseRules(w, noSuchRules{fmt.Errorf("no network and no vassal %q", of)})
		return
	}
	answer(w, visible)
}

func refuseRules(w http.ResponseWriter, err error) {
	status := http.StatusConflict
	if _, ok := errors.AsType[noSuchRules](err); ok {
		status = http.StatusNotFound
	}
	if errors.Is(err, ErrBadQuery) {
		status = http.StatusBadRequest
	}
	http.Error(w, err.Error(), status)
}

// countTime is how long a list waits for the router's counters; without them it
// says what is to be in force.
const countTime = 3 * time.Second

// listRules are the chains of a name, of everybody without one.
func (e *Emperor) listRules(ctx context.Context, name, device string) ([]RuleChain, error) {
	var counted []CountedChain
	if e.Counted != nil {
		ctx, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		var err error
		if counted, err = e.Counted(ctx); err != nil {
			e.Log.Debug("no counters of rules", "err", err) // the router is being started, or held up
		}
	}
	all := []RuleChain{}
	err := e.inLoop(func() error {
		targets, err := e.targets(name, device)
		for i := range targets {
			all = append(all, targets[i].chains(counted)...)
		}
		return err
	})
	return all, err
}

// inLoop has the loop run f, and returns its error.
func (e *Emperor) inLoop(f func() error) error {
	result := make(chan error, 1)
	e.call(func() { result <- f() })
	select {
	case err := <-result:
		return err
	case <-e.stopped:
		return errors.New("the emperor is stopping")
	}
}
