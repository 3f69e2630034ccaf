package emperor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// settleTime is how long an ini that we have changed is waited for to be read.
const settleTime = 5 * time.Second

// awaitRules waits until the router has taken a vassal's rules, and its ini was read
// if we have changed it: the next change may move its lines. What the router refuses
// is taken back, but for what is in the ini now.
func (e *Emperor) awaitRules(ctx context.Context, c *ruleChange) error {
	v := c.target.member
	if v == nil {
		return nil
	}
	reading := time.After(settleTime)
	for patient := c.wrote; ; {
		var settled <-chan struct{}
		err := e.inLoop(func() (err error) {
			if v.ruling || patient && v.unheard() {
				settled = v.settles()
				return nil
			}
			return e.ruleOutcome(c)
		})
		if err != nil || settled == nil {
			return err
		}
		select {
		case <-settled:
		case <-reading:
			patient = false
		case <-ctx.Done():
			return ctx.Err()
		case <-e.stopped:
		}
	}
}

// ruleOutcome says what became of a change of a vassal's rules.
func (e *Emperor) ruleOutcome(c *ruleChange) error {
	v := c.target.member
	if e.vassals[v.name] != v {
		return nil
	}
	if c.wrote && v.unheard() {
		c.notes = append(c.notes, "the ini is not read again yet")
	} else if c.wrote && v.unfit != "" {
		c.notes = append(c.notes, "the ini is bad now, and does not count until it is mended: "+v.unfit)
	}
	switch {
	case v.unruled == "":
		return nil
	case c.wrote:
		return fmt.Errorf("the change is in the ini, and not in force: %s", v.unruled)
	}
	why := errors.New(v.unruled)
	err := e.setEdits(unsaved{Owner: c.target.ruleOwner, Edits: c.target.edits, Wrote: e.edits[c.target.ruleOwner].Wrote})
	e.rerule(v) // a router that did not answer may have taken them
	return errors.Join(why, err)
}

// unheard says that the newest ini was not read yet.
func (v *member) unheard() bool { return v.read != v.file && !v.removed && !v.dethroned }

// settles is closed when the ini has been read or the router has answered.
func (v *member) settles() <-chan struct{} {
	if v.settled == nil {
		v.settled = make(chan struct{})
	}
	return v.settled
}

// settle tells who waits for settles.
func (v *member) settle() {
	if v.settled != nil {
		close(v.settled)
		v.settled = nil
	}
}
