package emperor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// RuleOrder is a change of a rule.
type RuleOrder struct {
	Of        string // the network or the vassal
	Device    string // of the vassal; empty: it has one
	Direction string // out or in
	Delete    bool   // else it is added
	Rule      string // as it stands in an ini, without the direction; to delete one, its number will do
	At        int    // the number that an added rule gets; 0: it is the last
	Save      bool   // into the ini, too
}

// RuleAnswer is what became of a change.
type RuleAnswer struct {
	Chain    RuleChain  `json:"chain"` // that was changed
	Rule     RuleStatus `json:"rule"`  // that was added or deleted
	Warnings []string   `json:"warnings"`
}

func (o RuleOrder) values() url.Values {
	v := url.Values{"of": {o.Of}, "device": {o.Device}, "direction": {o.Direction}, "rule": {o.Rule}, "at": {strconv.Itoa(o.At)}}
	for name, set := range map[string]bool{"delete": o.Delete, "save": o.Save} {
		if set {
			v.Set(name, "")
		}
	}
	return v
}

func parseRuleOrder(v url.Values) (o RuleOrder, err error) {
	o = RuleOrder{Of: v.Get("of"), Device: v.Get("device"), Direction: v.Get("direction"), Rule: v.Get("rule"), Delete: v.Has("delete"), Save: v.Has("save")}
	if o.At, err = strconv.Atoi(v.Get("at")); err != nil || o.At < 0 || o.Of == "" {
		return o, fmt.Errorf("%w: want of, and at from 0 on", ErrBadQuery)
	}
	return o, nil
}

// rootOnly answers whoever is not root: chains are the operator's, also where the
// inis are others'.
func rootOnly(w http.ResponseWriter, r *http.Request) bool {
	uid, ok := r.Context().Value(peerKey{}).(uint32)
	if !ok || uid != 0 {
		http.Error(w, "only root changes rules while they are in force; yours are in your ini, which is read again when it changes", http.StatusForbidden)
	}
	return ok && uid == 0
}

// apiChangeRule adds or deletes a rule.
func (e *Emperor) apiChangeRule(w http.ResponseWriter, r *http.Request) {
	if !rootOnly(w, r) {
		return
	}
	o, err := parseRuleOrder(r.URL.Query())
	var a *RuleAnswer
	if err == nil {
		a, err = e.changeRule(r.Context(), o)
	}
	if err != nil {
		refuseRules(w, err)
		return
	}
	answer(w, a)
}

// ruleChange is a change on its way.
type ruleChange struct {
	RuleOrder
	target ruleTarget // as it was before
	rule   vassal.Rule
	number int // of the rule
	edits  vassal.Edits
	notes  []string
	file   iniFile            // of a vassal
	wrote  bool               // the vassal's ini was changed
	place  ini.Pos            // of the network, when the change is saved
	fresh  map[string]Written // what the emperor's ini says once the change is in it
}

// changeRule puts a change in force and, where that is asked for, into the ini.
// It is in force when this returns; if it cannot be saved, nothing is changed.
func (e *Emperor) changeRule(ctx context.Context, o RuleOrder) (*RuleAnswer, error) {
	e.ruling.Lock() // one change at a time, so that what is saved is what was judged
	defer e.ruling.Unlock()
	c := &ruleChange{RuleOrder: o}
	if err := e.inLoop(func() error { return e.planRule(c) }); err != nil {
		return nil, err
	}
	if o.Save {
		if err := e.saveRule(c); err != nil {
			return nil, fmt.Errorf("not saved, and not changed: %w", err)
		}
	}
	if err := e.inLoop(func() error { return e.enforce(c) }); err != nil {
		return nil, err
	}
	if err := e.awaitRules(ctx, c); err != nil {
		return nil, err
	}
	return e.ruleAnswer(ctx, c)
}

// planRule says what is to be changed.
func (e *Emperor) planRule(c *ruleChange) error {
	dir, err := vassal.ParseDirection(c.Direction)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadQuery, err)
	}
	targets, err := e.targets(c.Of, c.Device)
	switch {
	case err != nil:
		return err
	case len(targets) > 1:
		return fmt.Errorf("vassal %q has devices %s and %s; name one by --device", c.Of, targets[0].Device, targets[1].Device)
	case targets[0].network == nil:
		return fmt.Errorf("device %s of vassal %q joins a router that is not this emperor's, which is told its rules once; write them into its ini", targets[0].Device, targets[0].Vassal)
	}
	c.target = targets[0]
	if c.target.member != nil {
		c.file = c.target.member.file
	}
	if c.Delete {
		return c.planDeletion(dir)
	}
	if c.rule, err = c.target.words().Parse(dir, c.Rule); err != nil {
		return fmt.Errorf("%w: rule %q: %w", ErrBadQuery, c.Rule, err)
	}
	if c.rule.Routes() {
		d := vassal.DeviceSpec{Name: c.target.Device, Rules: []vassal.Rule{c.rule}}
		if bad := c.target.network.refuseRoutes(d); bad != nil {
			return errors.New(bad.Message)
		}
	}
	if n := c.target.edits.Unwritten(&c.rule); c.Save && c.At == 0 && n > 0 {
		c.edits, c.number = slices.Clone(c.target.edits), n // it is there already, and is saved now
		return nil
	}
	if c.edits, err = c.target.edits.Insert(c.At, c.rule); err != nil {
		return fmt.Errorf("%w: --at %d: %w", ErrBadQuery, c.At, err)
	}
	c.number = c.At
	if c.At == 0 {
		c.number = c.count(dir)
	}
	c.notes = e.newShadows(c)
	return nil
}

// count is how many rules of a direction are in force after the change.
func (c *ruleChange) count(dir vassal.Direction) (n int) {
	for _, r := range c.edits.InForce() {
		if r.Direction == dir {
			n++
		}
	}
	return n
}

func (c *ruleChange) planDeletion(dir vassal.Direction) error {
	n, err := strconv.Atoi(c.Rule)
	if err != nil {
		r, err := c.target.words().Parse(dir, c.Rule)
		if err != nil {
			return fmt.Errorf("%w: rule %q: %w", ErrBadQuery, c.Rule, err)
		}
		if gone := c.target.edits.Undeleted(&r); c.Save && gone != nil {
			c.edits, c.rule = slices.Clone(c.target.edits), *gone // it is out of force already
			return nil
		}
		if n = c.target.edits.Number(&r); n == 0 {
			return noSuchRules{fmt.Errorf("%s has no rule %q in force; see fiefdom firewall list %s", dir, c.target.words().Text(&r), c.Of)}
		}
	}
	var gone *vassal.Rule
	if c.edits, gone, err = c.target.edits.Delete(dir, n); err != nil {
		return noSuchRules{fmt.Errorf("%w; see fiefdom firewall list %s", err, c.Of)}
	}
	c.rule, c.number = *gone, n
	return nil
}

// newShadows warns of rules that never decide any more, or never will.
func (e *Emperor) newShadows(c *ruleChange) (notes []string) {
	var network []vassal.Rule
	if c.target.Vassal != "" {
		network = e.RulesOf(c.target.network.Device)
	}
	known := map[string]bool{}
	for _, w := range vassal.ShadowedRules(network, c.target.edits.InForce()) {
		known[w.Error()] = true
	}
	for _, w := range vassal.ShadowedRules(network, c.edits.InForce()) {
		if known[w.Error()] {
			continue
		}
		if w.Pos.Line == 0 {
			notes = append(notes, "this "+w.Message)
		} else {
			notes = append(notes, w.Error())
		}
	}
	return notes
}

// enforce puts the change in force: in what is on record, then with the router.
func (e *Emperor) enforce(c *ruleChange) error {
	pending, err := e.stillFits(c)
	if err != nil {
		return err
	}
	if err := e.setEdits(unsaved{Owner: c.target.ruleOwner, Edits: c.edits, Wrote: pending}); err != nil {
		return fmt.Errorf("put on record: %w", err)
	}
	e.takeWritten(c)
	text := "rule added"
	if c.Delete {
		text = "rule deleted"
	}
	e.Log.Info(text, append(c.target.attrs(&c.rule), "saved", c.Save)...)
	if c.target.Vassal != "" {
		e.rerule(c.target.member)
		if c.wrote {
			e.rescan()
		}
		return nil
	}
	if err := e.applyChains(c.target.network); err != nil {
		return errors.Join(err, e.setEdits(unsaved{Owner: c.target.ruleOwner, Edits: c.target.edits}))
	}
	return nil
}

// takeWritten takes what the emperor's ini says since a change was saved into it.
// That has moved the lines of other networks.
func (e *Emperor) takeWritten(c *ruleChange) {
	if c.fresh == nil {
		return
	}
	for i := range e.Networks {
		n := &e.Networks[i]
		before := e.inForce(n)
		n.Written = c.fresh[n.Device]
		if n != c.target.network && !reflect.DeepEqual(before, e.inForce(n)) {
			if err := e.applyChains(n); err != nil { // it names old lines, no more
				e.Log.Warn("the router does not know where lines stand by now", "network", n.Device, "err", err)
			}
		}
	}
}

// inForce is where a network stands, with its rules that count.
func (e *Emperor) inForce(n *Network) Written { return Written{n.Pos, e.RulesOf(n.Device)} }

// stillFits says whether the rules are those that the change was planned over.
// pending: an ini that we have changed, now or before, was not read as good since.
func (e *Emperor) stillFits(c *ruleChange) (pending bool, err error) {
	files := c.target.files
	if v := c.target.member; v != nil {
		now, err := e.targets("vassal:"+v.name, c.target.Device)
		if err != nil || len(now) != 1 || now[0].member != v {
			return false, errRead
		}
		files = now[0].files
	}
	if reflect.DeepEqual(e.rulesOf(c.target.ruleOwner, files), c.target.edits) {
		return c.wrote || e.edits[c.target.ruleOwner].Wrote, nil
	}
	if edits, read := c.edits.Over(files); c.wrote && read { // it was quicker than we are
		c.edits = edits
		return false, nil
	}
	return false, errRead
}

var errRead = errors.New("the rules were read again meanwhile; look at them, and try again")

// applyChains tells the router the chains of a network that count.
func (e *Emperor) applyChains(n *Network) error {
	if e.SetChains == nil {
		return errors.New("the router is being started; try again")
	}
	return e.SetChains(n.Device, e.inForce(n))
}

func (e *Emperor) ruleAnswer(ctx context.Context, c *ruleChange) (*RuleAnswer, error) {
	name := "network:" + c.target.Network
	if c.target.Vassal != "" {
		name = "vassal:" + c.target.Vassal
	}
	chains, err := e.listRules(ctx, name, c.target.Device)
	if err != nil {
		return nil, err
	}
	a := &RuleAnswer{Warnings: append([]string{}, c.notes...)}
	for _, chain := range chains {
		if chain.Direction == c.rule.Direction.String() {
			a.Chain = chain
		}
	}
	a.Rule = RuleStatus{Number: c.number, Text: c.target.words().Text(&c.rule)}
	if c.Delete && c.rule.Rule.Line > 0 {
		a.Rule.File, a.Rule.Line = c.rule.Rule.File, c.rule.Rule.Line
	}
	if !c.Save && (!c.Delete || c.rule.Rule.Line > 0) {
		a.Rule.Unsaved = "added"
		if c.Delete {
			a.Rule.Unsaved = "deleted"
		}
	}
	if !c.Delete && c.Save && c.number <= len(a.Chain.Rules) {
		for _, r := range a.Chain.Rules {
			if r.Number == c.number {
				a.Rule = r
			}
		}
	}
	return a, nil
}

// Rules asks for the chains in force, of one network or vassal or of all.
func (c *Client) Rules(ctx context.Context, of string) ([]RuleChain, error) {
	var all []RuleChain
	return all, c.ask(ctx, http.MethodGet, "/firewall?"+url.Values{"of": {of}}.Encode(), &all)
}

// ChangeRule adds or deletes a rule.
func (c *Client) ChangeRule(ctx context.Context, o RuleOrder) (*RuleAnswer, error) {
	a := new(RuleAnswer)
	return a, c.ask(ctx, http.MethodPost, "/firewall/change?"+o.values().Encode(), a)
}
