package emperor

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

func setBound(c *Config, p ini.Pair) error {
	c.Bound, c.BoundSet = nil, true
	for word := range strings.FieldsFuncSeq(p.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, err := vassal.CapabilityName(word)
		if err != nil {
			return err
		}
		c.Bound = append(c.Bound, name)
	}
	return nil
}

// isolate adds to the plan what the emperor's ini says of all vassals, and what
// the vassal's own says beside its network.
func (e *Emperor) isolate(r *resolved, c *vassal.Config) *ini.Error {
	p := &r.plan
	p.Isolation, p.Limits = c.Isolation, c.Limits
	p.Isolation.At = nil // where in the ini it stands changes no start
	p.Bound, p.BoundSet = e.Config.Bound, e.Config.BoundSet
	p.Hooks = append(e.asVassal(), p.Hooks...)
	if c.Isolation.Setns != "" {
		p.Reaper = true // what is born in another's pid namespace has to be a child
	}
	if r.namespaces&unix.CLONE_NEWUSER != 0 {
		p.NoNewPrivs, p.OwnIDs = true, e.Config.Tyrant
	}
	for _, name := range p.Caps {
		if p.BoundSet && !slices.Contains(p.Bound, name) {
			return &ini.Error{Pos: c.Isolation.At["cap"], Message: fmt.Sprintf("cap %s is not in emperor-cap of the emperor's ini, so no vassal can have it", name)}
		}
	}
	if pos, err := c.Isolation.Needs(r.namespaces); err != nil {
		return &ini.Error{Pos: pos, Message: err.Error()}
	}
	return e.reaches(r, c)
}

// reaches refuses devices that nobody could set up.
func (e *Emperor) reaches(r *resolved, c *vassal.Config) *ini.Error {
	for _, d := range e.devices(c) {
		switch {
		case c.Isolation.Setns != "":
			return &ini.Error{Pos: d.Pos, Message: "a vassal that joins another's namespaces (setns) has that one's network, and no device of its own"}
		case r.namespaces&unix.CLONE_NEWUSER != 0 && !d.Native():
			return &ini.Error{Pos: d.Pos, Message: fmt.Sprintf(
				"in a user namespace hooks have no right over device %s; write tuntap-device-address = ADDRESS, and the emperor sets it", d.Name)}
		}
	}
	return nil
}

// stillRoot warns of an app that keeps uid 0 in its user namespace.
func stillRoot(c *vassal.Config, r *resolved) ini.Errors {
	if r.namespaces&unix.CLONE_NEWUSER == 0 || r.plan.UID > 0 {
		return nil
	}
	return ini.Errors{{Pos: ini.Pos{File: c.File}, Warning: true, Message: "the app is uid 0 in its user namespace, and root's files and /proc/sys are its own there as on the host; write uid = USER"}}
}

// asVassal are the hooks of the emperor's ini that each vassal runs. In tyrant
// mode they have the owner's rights, as the whole vassal has.
func (e *Emperor) asVassal() []vassal.Hook {
	hooks := vassal.PhaseOf(e.Config.Hooks, vassal.AsVassal)
	if e.Config.Tyrant {
		for i := range hooks {
			hooks[i].Phase = vassal.AsUser
		}
	}
	return hooks
}
