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
// and ports that it declares.
func (e *Emperor) claim(v *member, x *expansion) ini.Errors {
	errs := e.admit(v, x)
	if errs.Failed() || x.Errors.Failed() {
		return errs
	}
	return append(errs, e.claimFor(x.Config)...)
}

// claimRead claims what inis declare that were just read, some of them afresh, and
// are good so far. Others are read again if that may change what they are refused for.
func (e *Emperor) claimRead(current []*expansion, fresh map[*expansion]bool) {
	good := slices.DeleteFunc(slices.Clone(current), func(x *expansion) bool { return x.Errors.Failed() })
	e.claimAll(good)
	changing := map[owner]bool{} // have written what is another's by now
	for _, x := range good {
		v := e.vassals[x.Name]
		if v.blocked = x.Errors.Failed(); v.blocked && fresh[x] {
			changing[v.file.owner] = true
		}
	}
	e.readBlocked(func(v *member) bool { return e.claims.freed || changing[v.file.owner] })
}

// claimAll claims what inis declare that were read together. What one gives up
// another may have, in whatever order they were read, also if that wants it in turn.
func (e *Emperor) claimAll(all []*expansion) {
	all = slices.Clone(all)
	for refused := len(all) + 1; len(all) > 0 && len(all) < refused; {
		refused = len(all)
		all = slices.DeleteFunc(all, func(x *expansion) bool { return !e.claimFor(x.Config).Failed() })
	}
	done := e.claimTogether(all)
	for _, x := range all {
		if !done[x] {
			x.Errors = append(x.Errors, e.claimFor(x.Config)...)
		}
	}
}

// claimTogether claims for those who can only have what they want if all of them give
// up what they had. Who cannot even so keeps what he had.
func (e *Emperor) claimTogether(all []*expansion) (done map[*expansion]bool) {
	for try := slices.Clone(all); len(try) > 1; {
		before := e.claims
		e.claims = before.copied()
		for _, x := range try {
			e.claims.Remove(x.Config.Name)
		}
		could := slices.DeleteFunc(slices.Clone(try), func(x *expansion) bool { return e.claimFor(x.Config).Failed() })
		if len(could) < len(try) {
			e.claims, try = before, could
			continue
		}
		done = map[*expansion]bool{}
		for _, x := range try {
			done[x] = true
		}
		return done
	}
	return nil
}

// readBlocked reads inis again that were refused since others claim what they want:
// somebody may have let go of it, or all of an owner want each other's by now.
func (e *Emperor) readBlocked(which func(*member) bool) {
	for _, v := range e.vassals {
		if v.blocked && !v.removed && !v.dethroned && !e.ending && which(v) {
			e.queue(v.file)
		}
	}
	e.claims.freed = false
}

// admit checks an ini against the instance's policy.
func (e *Emperor) admit(v *member, x *expansion) ini.Errors {
	var errs ini.Errors
	switch {
	case x.Errors.Failed():
		return nil
	case x.Config == nil:
		return ini.Errors{{Pos: ini.Pos{File: v.file.path}, Message: "the expander said nothing about it"}}
	}
	e.Config.Common.onlyNamed(x.Config)
	if e.Config.Tyrant {
		errs = append(errs, e.judgeTyrant(x.Config, v.file.owner)...)
	} else if v.file.owner.uid != 0 {
		errs = append(errs, asRoot(x.Config, v.file.owner)...)
	}
	errs = append(errs, e.bridgeRights(x.Config, v.file.owner)...)
	leased := e.leasedToOthers(x.Config)
	v.blocked = len(leased) > 0
	return append(errs, leased...)
}

// asRoot warns of what an ini that is not root's does with root's rights. As
// under uWSGI's emperor it may, without tyrant mode.
func asRoot(c *vassal.Config, o owner) (errs ini.Errors) {
	warn := func(pos ini.Pos, what string) {
		errs = append(errs, ini.Error{Pos: pos, Warning: true, Message: fmt.Sprintf(
			"%s, and the file is not root's but that of uid %d, who so has root's rights; chown it to root, or use emperor-tyrant", what, o.uid)})
	}
	if i := slices.IndexFunc(c.Hooks, func(h vassal.Hook) bool { return h.Phase != vassal.AsUser }); i >= 0 {
		warn(c.Hooks[i].Pos, fmt.Sprintf("hook %s runs as root", c.Hooks[i].Phase))
	}
	if i := slices.IndexFunc(c.Publish, func(p vassal.Publish) bool { return p.First < lowPort }); i >= 0 {
		warn(c.Publish[i].Pos, fmt.Sprintf("publish = %s takes a port below %d", c.Publish[i], lowPort))
	}
	if c.Network == vassal.HostNetwork {
		warn(c.NetworkPos, "network = host has no jail")
	}
	return errs
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

// judgeTyrant judges an owner's ini: by tyrant mode, then by the operator's policy.
func (e *Emperor) judgeTyrant(c *vassal.Config, o owner) ini.Errors {
	errs := tyrant(c, o)
	return append(errs, e.policed(c)...)
}

func denied(pos ini.Pos, what string) ini.Error {
	return ini.Error{Pos: pos, Message: what + " in tyrant mode; the emperor's operator would have to allow it"}
}

// lowPorts refuses ports that would be root's, if no policy says which an owner
// may have.
func lowPorts(c *vassal.Config) (errs ini.Errors) {
	for _, p := range c.Publish {
		if p.First < lowPort {
			errs = append(errs, denied(p.Pos, fmt.Sprintf("publish = %s: a port below %d is not allowed", p, lowPort)))
		}
	}
	return errs
}

// tyrant refuses what would give an owner rights that are not his, and makes
// him the one who the vassal runs as.
func tyrant(c *vassal.Config, o owner) ini.Errors {
	var errs ini.Errors
	deny := func(pos ini.Pos, what string) { errs = append(errs, denied(pos, what)) }
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
	if c.CapSet && !overOwnIDs(c) {
		deny(at("cap"), "cap is not allowed (with userns = auto: "+strings.Join(ownCaps, " ")+")")
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
	if c.Network == vassal.HostNetwork {
		deny(c.NetworkPos, "network = host is not allowed")
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
