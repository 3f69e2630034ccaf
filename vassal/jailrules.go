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
			if links[i].Device == l.Device && l.Network != "" && !SameRules(l.Rules, links[i].Rules) {
				errs = append(errs, j.setRules(l, links[i].Rules))
			}
		}
	}
	return errors.Join(errs...)
}

func (j *Jail) setRules(l *link, rules []tuntap.DeviceRule) error {
	j.mu.Lock()
	old, life := l.Rules, l.life
	l.Rules = rules
	j.mu.Unlock()
	if life == nil {
		return nil
	}
	err := life.SetRules(rules)
	if err == nil || errors.Is(err, tuntap.ErrLineLost) {
		return nil
	}
	j.mu.Lock()
	l.Rules = old
	j.mu.Unlock()
	return fmt.Errorf("rules of device %s: %w", l.Device, err)
}

// SameRules says whether two lists are the same rules, from the same places.
func SameRules(a, b []tuntap.DeviceRule) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// HasRules says whether the jail's devices have the rules of the links.
func (j *Jail) HasRules(links []Link) bool {
	own := j.Links()
	for i := range links {
		for k := range own {
			if own[k].Device == links[i].Device && !SameRules(own[k].Rules, links[i].Rules) {
				return false
			}
		}
	}
	return true
}
