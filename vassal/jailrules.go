package vassal

import (
	"errors"
	"fmt"
	"reflect"

	"fiefdom/tuntap"
)

// SetRules gives the jail's devices the rules that the links have, where they
// have others, and tells the router: packets, connections and processes go on.
// What a router refuses is left as it is. A device of a foreign router takes its
// rules when it joins, and none later. One whose router is being started again
// has them with its next hand-over.
func (j *Jail) SetRules(links []Link) error {
	j.joining.Lock()
	defer j.joining.Unlock()
	if j.left {
		return nil
	}
	var errs []error
	for _, l := range j.links {
		for i := range links {
			if !j.hasRules(l, &links[i]) {
				errs = append(errs, j.setRules(l, links[i].Rules))
			}
		}
	}
	return errors.Join(errs...)
}

func (j *Jail) setRules(l *link, rules []tuntap.DeviceRule) error {
	j.mu.Lock()
	old, life := l.Rules, l.life
	l.Rules, l.unsure = rules, false
	j.mu.Unlock()
	if life == nil {
		return nil
	}
	err := life.SetRules(rules)
	if err == nil || errors.Is(err, tuntap.ErrLineLost) {
		return nil // the next router gets them
	}
	j.mu.Lock()
	l.Rules, l.unsure = old, errors.Is(err, tuntap.ErrNoAnswer) || errors.Is(err, tuntap.ErrLineBroken)
	j.mu.Unlock()
	return fmt.Errorf("rules of device %s: %w", l.Device, err)
}

// SameRules says whether two lists are the same rules, from the same places.
func SameRules(a, b []tuntap.DeviceRule) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// HasRules says whether the jail's devices have the rules of the links. Of a device
// without a router nobody has any.
func (j *Jail) HasRules(links []Link) bool {
	j.mu.Lock()
	own := j.links
	j.mu.Unlock()
	for _, l := range own {
		for i := range links {
			if !j.hasRules(l, &links[i]) {
				return false
			}
		}
	}
	return true
}

// hasRules says whether a device has the rules of a link, if that is its own.
func (j *Jail) hasRules(l *link, of *Link) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return l.Device != of.Device || l.Network == "" || !l.unsure && SameRules(l.Rules, of.Rules)
}
