package emperor

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// users gives a vassal whose ini says userns = auto a range of ids, and makes those
// of the plan the host's of that range. Who it would be without it stays on disk.
func (e *Emperor) users(r *resolved, c *vassal.Config) *ini.Error {
	if !c.Isolation.Users {
		return nil
	}
	fail := func(message string, args ...any) *ini.Error {
		return &ini.Error{Pos: c.Isolation.At["userns"], Message: fmt.Sprintf(message, args...)}
	}
	p := &r.plan
	switch {
	case p.Confined == nil:
		return fail("userns = auto goes with confine = default or strict, not %s; leave one of them out", r.level)
	case r.namespaces&unix.CLONE_NEWUSER != 0:
		return fail("userns = auto and a user namespace by unshare or emperor-use-clone exclude each other; leave one of them out")
	case c.Chroot != "" || c.Isolation.Root != "" && !c.Isolation.Rootfs:
		return fail("userns = auto goes with no root of the host's own making; write rootfs = DIRECTORY in place of chroot or namespace")
	}
	u := &vassal.Users{UID: p.UID, GID: p.GID}
	uid, gid := p.UID, p.GID // inside
	if asRoot := c.UID == nil || c.UID.ID == 0 || e.Config.Tyrant; asRoot && (c.Isolation.Rootfs || uid == 0) {
		uid, gid = 0, 0
	}
	if u.UID <= 0 || u.GID <= 0 { // root is nobody's name on disk
		leased, err := e.leaseUID(c.Name)
		if err != nil {
			return fail("%v", err)
		}
		if u.UID <= 0 {
			u.UID = leased
		}
		u.GID = leased
	}
	if c.GID != nil && !e.Config.Tyrant {
		gid = c.GID.ID
	}
	if uid >= vassal.RangeSize || gid >= vassal.RangeSize {
		return fail("uid %d or gid %d is none of the %d in a user namespace of the vassal's own; with rootfs, leave uid out for the app to be root there", uid, gid, vassal.RangeSize)
	}
	first, err := e.leaseRange(c.Name)
	if err != nil {
		return fail("userns = auto: %v", err)
	}
	u.First = first
	p.Users, p.UID, p.GID, p.SetGroups = u, first+uid, first+gid, true
	p.Groups = inRange(p, p.Groups)
	return nil
}

// ownCaps are capabilities over nothing but ids, and open no system calls: in a
// user namespace of its own an owner's app may have them.
var ownCaps = []string{"chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid"}

// overOwnIDs says of an owner's capabilities whether they are over his own ids alone.
func overOwnIDs(c *vassal.Config) bool {
	return c.Isolation.Users && !slices.ContainsFunc(c.Cap, func(name string) bool { return !slices.Contains(ownCaps, name) })
}

// inRange are the groups of a range that those on disk are. Root's is none, and
// those beyond the range are nobody's inside.
func inRange(p *vassal.Plan, disk []int) (groups []int) {
	for _, g := range disk {
		if g > 0 && g < vassal.RangeSize && max(g, p.Users.GID) < vassal.RangeSize {
			groups = append(groups, p.Users.Group(p, g))
		}
	}
	return groups
}

// otherUser gives a plan the ids of an attached process of its own.
func otherUser(p *vassal.Plan, d *vassal.Attached) {
	app := *p
	if d.UID != nil {
		p.UID, p.GID, p.Groups, p.SetGroups = d.UID.ID, d.UID.Main, slices.Clone(d.UID.Groups), true
		if p.GID < 0 {
			p.GID = p.UID
		}
	}
	if d.GID != nil {
		p.GID, p.SetGroups = d.GID.ID, true
	}
	u := p.Users
	if u == nil {
		return
	}
	if d.UID != nil {
		p.Groups = inRange(&app, p.Groups)
		if p.UID == u.UID {
			p.UID = app.UID // who is that on disk
		} else {
			p.UID += u.First
		}
	}
	if d.UID != nil || d.GID != nil {
		p.GID = u.Group(&app, p.GID)
	}
}

// strangers says of an attached process whether its ids can be none of a user
// namespace of the vassal's own.
func strangers(p *vassal.Plan, d *vassal.Attached) error {
	if p.Users == nil {
		return nil
	}
	bad := func(id, app int) bool { return id >= vassal.RangeSize || id == 0 && app != p.Users.First }
	if d.UID != nil && (bad(d.UID.ID, p.UID) || bad(d.UID.Main, p.GID)) || d.GID != nil && bad(d.GID.ID, p.GID) {
		return fmt.Errorf("with userns = auto a process has uids and gids from 1 to %d, and root's only where the app has", vassal.RangeSize-1)
	}
	return nil
}
