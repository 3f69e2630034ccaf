package emperor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// claim checks an ini against the instance's policy, and claims the addresses
// that it declares.
func (e *Emperor) claim(v *member, x *expansion) ini.Errors {
	var errs ini.Errors
	switch {
	case x.Errors.Failed():
		return nil
	case x.Config == nil:
		return ini.Errors{{Pos: ini.Pos{File: v.file.path}, Message: "the expander said nothing about it"}}
	}
	e.Config.Common.onlyNamed(x.Config)
	if e.Config.Tyrant {
		errs = append(errs, tyrant(x.Config, v.file.owner)...)
	} else if v.file.owner.uid != 0 {
		errs = append(errs, asRoot(x.Config, v.file.owner)...)
	}
	errs = append(errs, e.leasedToOthers(x.Config)...)
	if errs.Failed() {
		return errs
	}
	return append(errs, e.claims.Add(x.Config)...)
}

// asRoot warns of what an ini that is not root's does with root's rights. As
// under uWSGI's emperor it may, without tyrant mode.
func asRoot(c *vassal.Config, o owner) ini.Errors {
	i := slices.IndexFunc(c.Hooks, func(h vassal.Hook) bool { return h.Phase != vassal.AsUser })
	if i < 0 {
		return nil
	}
	return ini.Errors{{Pos: c.Hooks[i].Pos, Warning: true, Message: fmt.Sprintf(
		"hook %s runs as root, and the file is not root's but that of uid %d, who so has root's rights; chown it to root, or use emperor-tyrant", c.Hooks[i].Phase, o.uid)}}
}

// leasedToOthers reports declared addresses that another vassal of now has on
// lease: its address stays with its name, also against a neighbour's ini.
func (e *Emperor) leasedToOthers(c *vassal.Config) ini.Errors {
	var errs ini.Errors
	for _, d := range c.Devices {
		for _, a := range d.Addresses {
			name, ok := e.Leases.Holder(a)
			if other := e.vassals[name]; ok && name != c.Name && other != nil && !other.removed && e.leases(other) {
				errs = append(errs, ini.Error{Pos: d.Pos, Message: fmt.Sprintf("address %s is leased to vassal %q; choose another", a, name)})
			}
		}
	}
	return errs
}

// leases says whether a vassal lives on leased addresses, as far as is known.
func (e *Emperor) leases(v *member) bool {
	if v.config == nil || len(v.config.Devices) == 0 {
		return true
	}
	return slices.ContainsFunc(e.devices(v.config), func(d vassal.DeviceSpec) bool { return d.Auto })
}

// tyrant refuses what would give an owner rights that are not his, and makes
// him the one who the vassal runs as.
func tyrant(c *vassal.Config, o owner) ini.Errors {
	var errs ini.Errors
	deny := func(pos ini.Pos, what string) {
		errs = append(errs, ini.Error{Pos: pos, Message: what + " in tyrant mode; the emperor's operator would have to allow it"})
	}
	file := ini.Pos{File: c.File}
	at := func(option string) ini.Pos {
		if pos, ok := c.Isolation.At[option]; ok {
			return pos
		}
		return file
	}
	if o.uid == 0 || o.gid == 0 {
		deny(file, fmt.Sprintf("the ini belongs to %d:%d (root), which may not run a vassal", o.uid, o.gid))
	}
	for _, h := range c.Hooks {
		deny(h.Pos, "hooks are not allowed")
	}
	for _, p := range slices.Concat(c.App, c.Pushed) {
		if strings.HasSuffix(p.Key, "-as-emperor") {
			deny(p.Pos, p.Key+" is not allowed")
		}
	}
	if c.CapSet {
		deny(at("cap"), "cap is not allowed")
	}
	if c.UID != nil && c.UID.ID != int(o.uid) {
		deny(c.UID.Pos, fmt.Sprintf("uid %s is not the ini's owner (%d)", c.UID.Name, o.uid))
	}
	if c.GID != nil && c.GID.ID != int(o.gid) {
		deny(c.GID.Pos, fmt.Sprintf("gid %s is not the ini's group (%d)", c.GID.Name, o.gid))
	}
	for _, g := range c.AddGID {
		deny(g.Pos, "add-gid is not allowed")
	}
	for i := range c.Attached {
		d := &c.Attached[i]
		if d.UID != nil && d.UID.ID != int(o.uid) || d.GID != nil && d.GID.ID != int(o.gid) {
			deny(d.Pos, "a process under other ids than the owner's is not allowed")
		}
		d.UID, d.GID = nil, nil
	}
	if c.Chroot != "" {
		deny(at("chroot"), "chroot is not allowed")
	}
	for _, name := range c.Isolation.RootOnly() {
		deny(at(name), name+" is not allowed")
	}
	if c.Limits.Nice < 0 {
		deny(at("prio"), fmt.Sprintf("prio %d is not allowed", c.Limits.Nice))
	}
	c.UID = &vassal.Identity{Name: strconv.Itoa(int(o.uid)), ID: int(o.uid), Main: int(o.gid)}
	return errs
}
