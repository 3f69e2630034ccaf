package tuntap

import (
	"slices"

	"fiefdom/firewall"
)

// maxChanges bounds how many rules one packet is told to need.
const maxChanges = 4

// changes are the lines that turn the verdict. Each is tried on a replica, with
// those before it: what does not help is not told.
func (x *question) changes(rep *replica, o *outcome) []Change {
	act := firewall.Allow
	if o.passed() {
		act = firewall.Deny
	}
	cfg := x.cfg
	var list []Change
	var edits []edit
	for range maxChanges {
		ed, ok := x.oneChange(o, act, &cfg)
		if !ok {
			return nil
		}
		if ed.peer != nil {
			ed.peer = rep.real(ed.peer)
			edits = append(edits, ed)
		}
		list = append(list, ed.change)
		rep = newReplica(x.net, cfg, x.peers)
		for _, e := range edits {
			rep.of[e.peer].insert(e.dir, e.index, e.rule)
		}
		next := rep.try(rep.of[x.from], x.raw)
		if next.passed() == (act == firewall.Allow) {
			return list
		}
		o = &next
	}
	return nil
}

// edit is a change, and what it does: to a peer's own rules, or to the config.
type edit struct {
	change Change
	peer   *peer // whose rule it is; nil: the config was changed
	dir    firewall.Direction
	index  int
	rule   firewall.Rule
}

// oneChange finds the line against what decided last. One of the network is
// made in cfg at once.
func (x *question) oneChange(o *outcome, act firewall.Action, cfg *NetworkConfig) (edit, bool) {
	ed := edit{rule: firewall.Exact(act, &o.flow), dir: firewall.Out}
	if o.passed() && len(o.out) == 0 {
		ed.dir = firewall.In
	}
	m := o.last(act, ed.dir)
	switch {
	case o.passed():
	case o.why == DropIsolate:
	case o.why == DropRule && m != nil:
		ed.dir = m.dir
	default:
		return ed, false
	}
	if m != nil && m.peer != nil {
		ed.peer, ed.index = m.peer, m.index
		before := &m.chain.Rules()[m.index]
		// Its words are addresses only.
		ed.rule = firewall.Rule{Action: act, Src: ed.rule.Src, Dst: ed.rule.Dst}
		ed.change = Change{Text: "tuntap-device-rule = " + ed.rule.DeviceText(ed.dir), File: before.File, Line: before.Line, Before: true}
		ed.change.unwritten(ed.index)
		return ed, true
	}
	rules := &cfg.Out
	if ed.dir == firewall.In {
		rules = &cfg.In
	}
	if m != nil {
		ed.index = m.index
	}
	ed.change = Change{Text: "tuntap-router-firewall-" + ed.dir.String() + " = " + ed.rule.String(), File: cfg.File, Line: cfg.Line}
	if ed.index < len(*rules) {
		before := (*rules)[ed.index]
		if before.File != "" {
			ed.change.File, ed.change.Line, ed.change.Before = before.File, before.Line, true
			ed.change.unwritten(ed.index)
		}
		// A line that was told already stands before this one.
		ed.rule.File, ed.rule.Line = before.File, before.Line
	}
	*rules = slices.Insert(slices.Clone(*rules), ed.index, ed.rule)
	return ed, true
}

// unwritten notes that the rule before which a change comes is in no file.
func (c *Change) unwritten(index int) {
	if c.File == firewall.Unsaved {
		c.Number = index + 1
	}
}

// last is the mark of the rule to write another before: the one that dropped the
// packet or, for one that passed, the rule of the network's chain dir that
// allowed it; nil: there is none.
func (o *outcome) last(act firewall.Action, dir firewall.Direction) *mark {
	for _, list := range [][]mark{o.in, o.out} {
		for i := len(list) - 1; i >= 0; i-- {
			m := &list[i]
			if m.place != placeChain || m.index < 0 {
				continue
			}
			if act == firewall.Allow && m.act != firewall.Allow || act == firewall.Deny && m.peer == nil && m.dir == dir {
				return m
			}
		}
	}
	return nil
}
