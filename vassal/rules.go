package vassal

import (
	"fmt"
	"slices"

	"fiefdom/firewall"
	"fiefdom/internal/ini"
	"fiefdom/tuntap"
)

// Rule is a rule of a device or, where its direction says which chain, of a network.
type Rule = tuntap.DeviceRule

// Direction is out or in, seen from a vassal.
type Direction = firewall.Direction

// Directions are both, in the order in which people are told of them.
var Directions = []Direction{firewall.Out, firewall.In}

// ParseDirection reads out or in.
func ParseDirection(s string) (Direction, error) { return firewall.ParseDirection(s) }

// RuleWords is how rules are written: as those of a network's chains, or as
// those of a device.
type RuleWords bool

// The two ways to write rules.
const (
	ChainWords  RuleWords = false // ACTION [SRC DST [PROTO [PORTS]]]
	DeviceWords RuleWords = true  // SRC DST ACTION [TARGET]
)

// Parse reads a rule for a direction, as it stands in an ini.
func (w RuleWords) Parse(dir Direction, text string) (Rule, error) {
	if w == DeviceWords {
		return tuntap.ParseDeviceRule(dir.String() + " " + text)
	}
	r, err := firewall.ParseRule(text)
	return Rule{Direction: dir, Rule: r}, err
}

// Text is the rule without its direction, as Parse reads it.
func (w RuleWords) Text(r *Rule) string {
	if w == DeviceWords {
		return r.Text()[len(r.Direction.String())+1:]
	}
	return r.Rule.String()
}

// Option is the rule as an ini has it.
func (w RuleWords) Option(r *Rule) ini.Pair {
	if w == DeviceWords {
		return ini.Pair{Key: "tuntap-device-rule", Value: r.Text()}
	}
	return ini.Pair{Key: "tuntap-router-firewall-" + r.Direction.String(), Value: r.Rule.String()}
}

// Is says whether an option of an ini is the rule.
func (w RuleWords) Is(p ini.Pair, r *Rule) bool {
	want := w.Option(r)
	if p.Key != want.Key {
		return false
	}
	var got Rule
	var err error
	if w == DeviceWords {
		got, err = tuntap.ParseDeviceRule(p.Value)
	} else {
		got, err = w.Parse(r.Direction, p.Value)
	}
	return err == nil && w.Option(&got) == want
}

// Edit is a rule, and what was done to it that no file says.
type Edit struct {
	Rule
	Added   bool `json:"added,omitempty"`   // no file has it
	Deleted bool `json:"deleted,omitempty"` // a file has it, and it is not in force
}

// Edits are rules in order, with what was changed since the files were read.
// They are never changed: each change is another list.
type Edits []Edit

// Unedited are the rules of files as they are.
func Unedited(rules []Rule) Edits {
	edits := make(Edits, len(rules))
	for i := range rules {
		edits[i].Rule = rules[i]
	}
	return edits
}

// InForce are the rules that count.
func (e Edits) InForce() []Rule { return e.choose(func(x *Edit) bool { return !x.Deleted }) }

// OfFiles are the rules that files have.
func (e Edits) OfFiles() []Rule { return e.choose(func(x *Edit) bool { return !x.Added }) }

func (e Edits) choose(want func(*Edit) bool) (rules []Rule) {
	for i := range e {
		if want(&e[i]) {
			rules = append(rules, e[i].Rule)
		}
	}
	return rules
}

// Unsaved says whether anything of it is in no file.
func (e Edits) Unsaved() bool {
	return slices.ContainsFunc(e, func(x Edit) bool { return x.Added || x.Deleted })
}

// Over makes the same changes of rules that files have now; false if these are
// others than they were. Where they stand does not count.
func (e Edits) Over(rules []Rule) (Edits, bool) {
	e = slices.Clone(e)
	left := map[Direction][]Rule{}
	for _, r := range rules {
		left[r.Direction] = append(left[r.Direction], r)
	}
	for i := range e {
		x := &e[i]
		if x.Added {
			continue
		}
		next := left[x.Direction]
		if len(next) == 0 || !x.same(&next[0]) {
			return nil, false
		}
		x.Rule, left[x.Direction] = next[0], next[1:]
	}
	return e, len(left[firewall.Out])+len(left[firewall.In]) == 0
}

// find is the place of the n-th rule in force of a direction, from 1 on.
func (e Edits) find(dir Direction, n int) (int, error) {
	count := 0
	for i := range e {
		if e[i].Direction == dir && !e[i].Deleted {
			if count++; count == n {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("there is no rule %d: %s has %d", n, dir, count)
}

// Number is that of the first rule in force which is the same; 0 if there is none.
func (e Edits) Number(r *Rule) int {
	count := 0
	for i := range e {
		if e[i].Direction != r.Direction || e[i].Deleted {
			continue
		}
		if count++; e[i].same(r) {
			return count
		}
	}
	return 0
}

// Unwritten is the number of the first rule in force which is the same and in no
// file; 0 if there is none.
func (e Edits) Unwritten(r *Rule) int {
	count := 0
	for i := range e {
		if e[i].Direction != r.Direction || e[i].Deleted {
			continue
		}
		if count++; e[i].Added && e[i].same(r) {
			return count
		}
	}
	return 0
}

// Undeleted is the first rule which is the same, out of force, and still in a
// file; nil if there is none.
func (e Edits) Undeleted(r *Rule) *Rule {
	for i := range e {
		if e[i].Deleted && e[i].same(r) {
			return &e[i].Rule
		}
	}
	return nil
}

// same says whether the edit is of a rule with the same words.
func (x *Edit) same(r *Rule) bool {
	return x.Direction == r.Direction && x.Text() == r.Text() && x.Rule.Rule.String() == r.Rule.String()
}

// Insert adds a rule as the n-th of its direction; 0: as the last one.
func (e Edits) Insert(n int, r Rule) (Edits, error) {
	at := len(e)
	if n > 0 {
		i, err := e.find(r.Direction, n)
		if err != nil && n > 1 {
			if _, last := e.find(r.Direction, n-1); last != nil {
				return nil, err
			}
		} else if err == nil {
			at = i
		}
	}
	r.Rule.File, r.Rule.Line = firewall.Unsaved, 0
	return slices.Insert(slices.Clone(e), at, Edit{Rule: r, Added: true}), nil
}

// Delete takes the n-th rule of a direction out of force.
func (e Edits) Delete(dir Direction, n int) (Edits, *Rule, error) {
	i, err := e.find(dir, n)
	if err != nil {
		return nil, nil, err
	}
	e = slices.Clone(e)
	gone := e[i].Rule
	if e[i].Added {
		return slices.Delete(e, i, i+1), &gone, nil
	}
	e[i].Deleted = true
	return e, &gone, nil
}

// ShadowedRules warns of rules that never decide, since others come first: those
// of the network before a device's own.
func ShadowedRules(network, own []Rule) ini.Errors { return tuntap.Shadowed(network, own) }
