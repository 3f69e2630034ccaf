package vassal

import (
	"fmt"
	"slices"
	"strings"
)

// Confinement is how far a process is confined, as it was read back from the
// kernel when it had started. The schema is stable: fields are only added.
type Confinement struct {
	Level        Level    `json:"level"`
	Capabilities []string `json:"capabilities"`         // that it has; with Unbounded it may have others
	Unbounded    bool     `json:"unbounded,omitempty"`  // its programs may get rights of their own, as sudo does
	Filtered     bool     `json:"filtered,omitempty"`   // its system calls are
	Landlock     int      `json:"landlock,omitempty"`   // version of the rules about its files; 0: this kernel has none
	Namespaces   []string `json:"namespaces,omitempty"` // of its own, its network's aside
	Writable     []string `json:"writable,omitempty"`   // what it may write beside its private folders
	Ports        []uint16 `json:"ports,omitempty"`      // of TCP, with Counted the only ones that it may listen on
	Counted      bool     `json:"counted,omitempty"`
	Users        *Users   `json:"users,omitempty"` // the range of ids of its own user namespace; nil: it has the host's
	Lacks        []string `json:"lacks,omitempty"` // what this kernel has not, and the level would have
}

// Confinement is that of the generation's app; nil: one from before there were
// levels.
func (g *Generation) Confinement() *Confinement { return g.launch.Plan.Confinement() }

// Confinement is that of an app which the plan has started.
func (plan *Plan) Confinement() *Confinement {
	if plan.Level == "" {
		return nil
	}
	c := &Confinement{Level: plan.Level, Capabilities: append([]string{}, plan.Caps...), Unbounded: !plan.Bounded && !plan.NoNewPrivs}
	k := plan.Confined
	if k == nil {
		return c
	}
	c.Filtered, c.Landlock, c.Namespaces = true, LandlockABI(), slices.Clone(confinedNamespaces)
	if c.Users = plan.Users; c.Users != nil {
		c.Namespaces = append(c.Namespaces, "user")
	}
	c.Ports, c.Counted = k.Ports, k.Counted
	c.Writable = slices.Clone(k.Writable)
	for _, b := range k.Binds {
		if !b.ReadOnly {
			c.Writable = append(c.Writable, b.Target)
		}
	}
	c.Lacks = lacks(c.Landlock, k.Counted, k.Shared)
	return c
}

// LacksOfKernel is what a confinement of the level default goes without here.
func LacksOfKernel() []string { return lacks(LandlockABI(), true, true) }

// lacks is what a version of Landlock leaves out, for an app whose ports are
// counted, and for one in the host's network.
func lacks(abi int, counted, shared bool) (all []string) {
	switch {
	case abi == 0:
		all = append(all, "Landlock (Linux 5.13, and lsm=landlock): of files the app has what their modes and its mounts leave")
	case abi < abiTruncate:
		all = append(all, "Landlock's truncate (Linux 6.2): files that the app may not write can be emptied if their modes allow it")
	}
	if abi < abiPorts && counted {
		all = append(all, "Landlock's ports (Linux 6.7): with listen-ports the app may listen on others, too")
	}
	if abi < abiScopes && shared {
		all = append(all, "Landlock's scopes (Linux 6.12): with network = host the app reaches abstract sockets of the host's")
	}
	return all
}

// String is one line for people.
func (c *Confinement) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case len(c.Capabilities) > 0:
		add("capabilities %s", strings.Join(c.Capabilities, " "))
	case !c.Unbounded:
		add("no capabilities")
	default:
		add("its user's rights")
	}
	if len(c.Namespaces) > 0 {
		add("own %s", strings.Join(c.Namespaces, " "))
	}
	if u := c.Users; u != nil {
		add("uids %d-%d", u.First, u.Last())
	}
	if c.Filtered {
		add("system calls filtered")
	}
	if c.Landlock > 0 {
		add("landlock %d", c.Landlock)
	}
	if len(c.Writable) > 0 {
		add("writes %s", strings.Join(c.Writable, " "))
	}
	if c.Counted {
		add("listens on %s", strings.Trim(fmt.Sprint(c.Ports), "[]"))
	}
	return string(c.Level) + ": " + strings.Join(parts, ", ")
}
