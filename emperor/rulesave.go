package emperor

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// saveRule writes a change into the ini: an added rule beside those of its chain,
// a deleted one away. Other lines stay. It runs beside the loop.
func (e *Emperor) saveRule(c *ruleChange) error {
	if c.Delete && c.rule.Rule.Line == 0 {
		return nil // no file has it
	}
	if c.target.Vassal == "" {
		return e.saveChain(c)
	}
	file := c.file.path
	change, err := c.line(file)
	if err != nil {
		return err
	}
	var now iniFile
	if err := e.inLoop(func() error { now = c.target.member.file; return nil }); err != nil {
		return err
	}
	switch seen, err := e.Config.look(file, ""); {
	case c.file.section != "":
		return fmt.Errorf("%s is the ini of several vassals, one a section; write it by hand: %s", file, c.byHand())
	case err != nil:
		return err
	case now.id != c.file.id || seen.id != now.id:
		return fmt.Errorf("%s has changed and was not read yet; try again", file)
	}
	line, _, err := change.Apply(file)
	if err != nil {
		return err
	}
	c.saved(file, line)
	c.wrote = true
	return nil
}

// byHand is the line of an ini.
func (c *ruleChange) byHand() string {
	p := c.target.words().Option(&c.rule)
	return p.Key + " = " + p.Value
}

// saved notes where the change stands in a file.
func (c *ruleChange) saved(file string, line int) {
	if c.Delete {
		c.edits = slices.DeleteFunc(c.edits, func(x vassal.Edit) bool { return x.Deleted && x.Rule.Rule.File == file && x.Rule.Rule.Line == line })
	}
	for i := range c.edits {
		x := &c.edits[i]
		switch {
		case !c.Delete && x.Added && c.is(i):
			x.Added, x.Rule.Rule.File, x.Rule.Rule.Line = false, file, line
		case x.Rule.Rule.File == file && x.Rule.Rule.Line >= line && c.Delete:
			x.Rule.Rule.Line--
		case x.Rule.Rule.File == file && x.Rule.Rule.Line >= line:
			x.Rule.Rule.Line++
		}
	}
}

// is says whether an edit is the rule that is added.
func (c *ruleChange) is(i int) bool {
	n := 0
	for k := range c.edits[:i+1] {
		if x := &c.edits[k]; x.Direction == c.rule.Direction && !x.Deleted {
			n++
		}
	}
	return c.edits[i].Direction == c.rule.Direction && n == c.number
}

// line is the change of the ini.
func (c *ruleChange) line(file string) (*ini.Change, error) {
	change, err := c.among(file)
	if err != nil {
		return nil, fmt.Errorf("%w; write it by hand: %s", err, c.byHand())
	}
	return change, nil
}

// among places the change among the rules of its chain.
func (c *ruleChange) among(file string) (*ini.Change, error) {
	words := c.target.words()
	if c.Delete {
		at := c.rule.Rule
		if at.File != file {
			return nil, fmt.Errorf("the rule stands at %s:%d, which is not changed, as others may include it", at.File, at.Line)
		}
		return &ini.Change{Line: at.Line, Remove: true, Is: func(p ini.Pair) bool { return words.Is(p, &c.rule) }}, nil
	}
	option := words.Option(&c.rule)
	change := &ini.Change{Text: option.Key + " = " + option.Value}
	var before, after, other *vassal.Rule // of files
	passed := false
	for i := range c.edits {
		x := &c.edits[i]
		switch {
		case x.Added:
			passed = passed || c.is(i)
		case !passed && c.shared(&x.Rule, file): // they come before all of its own
		case x.Direction != c.rule.Direction:
			if x.Rule.Rule.File == file && (other == nil || other.Rule.Line < x.Rule.Rule.Line) {
				other = &x.Rule
			}
		case !passed:
			after = &x.Rule
		case before == nil:
			before = &x.Rule
		}
	}
	switch {
	case after != nil && after.Rule.File == file:
		beside(change, after, false, words)
	case before != nil && before.Rule.File == file:
		beside(change, before, true, words)
	case before != nil || after != nil:
		return nil, errors.New("the rules beside it stand in files that others may include, which are not changed")
	case other != nil:
		beside(change, other, false, words)
	default:
		return change, c.begin(change, file)
	}
	return change, nil
}

// shared says whether a rule stands before the first network, and so is of all.
func (c *ruleChange) shared(r *vassal.Rule, file string) bool {
	return c.target.Vassal == "" && r.Rule.File == file && c.place.File == file && r.Rule.Line < c.place.Line
}

// beside places a change next to the line of another rule.
func beside(change *ini.Change, r *vassal.Rule, before bool, words vassal.RuleWords) {
	key := words.Option(r).Key
	change.Line, change.Before, change.Is = r.Rule.Line, before, func(p ini.Pair) bool { return p.Key == key }
}

// begin places the first rule of a network or a device: behind the line that
// names it. A device that nobody names has its rules at the file's end.
func (c *ruleChange) begin(change *ini.Change, file string) error {
	key, name, pos := "tuntap-router", c.target.Network, c.place
	if c.target.Vassal != "" {
		if c.target.spec.Implicit || c.target.spec.Pos.Line == 0 {
			return nil
		}
		key, name, pos = "tuntap-device", c.target.Device, c.target.spec.Pos
	}
	if pos.File != file {
		return fmt.Errorf("%s %s stands at %s, which is not changed, as others may include it", key, name, pos)
	}
	change.Line, change.Is = pos.Line, func(p ini.Pair) bool {
		words := strings.Fields(p.Value)
		return p.Key == key && len(words) > 0 && words[0] == name
	}
	return nil
}

// saveChain writes a change of a network's chain and reads the file again: it has
// to say what was meant, and nothing else.
func (e *Emperor) saveChain(c *ruleChange) error {
	if e.ReadRules == nil {
		return errors.New("the emperor is being started; try again")
	}
	want := map[string]vassal.Edits{}
	if err := e.inLoop(func() error {
		for _, n := range e.Networks {
			want[n.Device] = vassal.Unedited(n.Rules)
		}
		return nil
	}); err != nil {
		return err
	}
	file := e.Config.File
	now, err := e.ReadRules()
	if err != nil {
		return err
	}
	if !says(now, want) {
		return fmt.Errorf("%s has other rules than those that were read; take them with: fiefdom firewall reload", file)
	}
	c.stand(now[c.target.Network])
	change, err := c.line(file)
	if err != nil {
		return err
	}
	line, undo, err := change.Apply(file)
	if err != nil {
		return err
	}
	c.saved(file, line)
	want[c.target.Network] = vassal.Unedited(c.edits.OfFiles())
	if now, err = e.ReadRules(); err == nil && says(now, want) {
		c.fresh = now
		return nil
	}
	return errors.Join(fmt.Errorf("%s would say something else with this line; write it by hand: %s", file, c.byHand()), err, undo())
}

// stand takes where a network and the rules of its file, which are those that were
// read before, are by now.
func (c *ruleChange) stand(now Written) {
	c.place = now.Pos
	gone := slices.IndexFunc(c.edits, func(x vassal.Edit) bool { return x.Deleted && reflect.DeepEqual(x.Rule, c.rule) })
	c.edits, _ = c.edits.Over(now.Rules)
	if c.Delete && gone >= 0 {
		c.rule = c.edits[gone].Rule
	}
}

// says says whether rules that were read are those that are wanted.
func says(got map[string]Written, want map[string]vassal.Edits) bool {
	for network, edits := range want {
		if _, same := edits.Over(got[network].Rules); !same {
			return false
		}
	}
	return len(got) == len(want)
}
