package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// confineOptions are a vassal's, as the default of all.
var confineOptions = []ini.Option[Config]{
	vassal.ConfineOption(func(c *Config) *vassal.Level { return &c.Confine }, func(*Config, ini.Pair) {},
		": of each vassal whose ini does not say; in tyrant mode an ini can only ask for a narrower one"),
}

// level is how far a vassal is confined: as its ini says, else the emperor's,
// else by the kind of vassal. native says that its network is the emperor's work
// alone.
func (e *Emperor) level(c *vassal.Config, native bool) (vassal.Level, *ini.Error) {
	least := e.Config.Confine
	if least == "" {
		least = vassal.LevelCompat
		if native && !c.Isolation.OwnRoot(c.Chroot) || e.Config.Tyrant || c.Isolation.Rootfs {
			least = vassal.LevelDefault
		}
	}
	own := c.Confine.Level
	fail := func(message string, args ...any) (vassal.Level, *ini.Error) {
		pos, ok := c.Isolation.At["confine"]
		if !ok {
			pos = ini.Pos{File: c.File}
		}
		return least, &ini.Error{Pos: pos, Message: fmt.Sprintf(message, args...)}
	}
	unsaid, widest := e.boundsOf(c).levels(least)
	switch {
	case own == "":
		own = unsaid
	case e.Config.Tyrant && widest.Narrower(own):
		return fail("confine = %s takes less away than %s, and an owner can only ask for more; leave it out, or have confine = %[1]s written into the emperor's ini or its tyrant-policy", own, widest)
	}
	if e.boundsOf(c).says("listen-ports") && !own.Full() {
		return fail("%s", e.boundsOf(c).beyond("listen-ports", fmt.Sprintf("to listen on any port, as all may under confine = %s,", own)))
	}
	switch {
	case c.Isolation.Rootfs && !own.Full():
		return fail("rootfs is furnished by confine = default or strict, not %s; write namespace = DIRECTORY for a root that is as you made it", own)
	case c.Isolation.PivotRoot != "" && own.Full():
		return fail("confine = %s leaves nothing of the host to be seen, and pivot_root shows its root; write rootfs = DIRECTORY instead", own)
	}
	if path := e.unfit(c); path != "" && own.Full() {
		way := "; write confine = compat if its app is to have it"
		if e.Config.Tyrant {
			way = ""
		}
		return fail("%s: that is the emperor's, the kernel's or another's own, and confine = %s gives nothing of it away%s", path, own, way)
	}
	if joins := c.Isolation.Setns != ""; joins && own.Full() {
		if c.Confine.Level != "" || e.Config.Confine != "" {
			return fail("confine = %s is for namespaces of the vassal's own, and setns joins another's; leave setns out, or write confine = compat", own)
		}
		own = vassal.LevelCompat
	}
	return own, nil
}

// unheeded warns of what an ini names and nobody will heed, or is not there.
func unheeded(c *vassal.Config, level vassal.Level) (warnings ini.Errors) {
	if level.Full() {
		for _, w := range c.Confine.Writable {
			if _, err := os.Lstat(w.Path); errors.Is(err, fs.ErrNotExist) && !c.Isolation.OwnRoot(c.Chroot) {
				warnings = append(warnings, ini.Error{Pos: w.Pos, Warning: true, Message: fmt.Sprintf("writable %s is not there; make it for the app's user before it starts", w.Path)})
			}
		}
		return warnings
	}
	for _, b := range c.Confine.Binds {
		warnings = append(warnings, ini.Error{Pos: b.Pos, Warning: true, Message: fmt.Sprintf(
			"bind does nothing under confine = %s, where the app sees the host's files; write confine = default", level)})
	}
	return warnings
}

// confine adds to the plan what a level takes away.
func (e *Emperor) confine(r *resolved, c *vassal.Config) {
	p := &r.plan
	p.Level = r.level
	switch {
	case r.level == vassal.LevelNone:
		p.Bounded = false
		return
	case !r.level.Full():
		return
	}
	p.Bounded, p.CleanEnv = true, true
	k := &vassal.Confined{Level: r.level, Binds: slices.Clone(c.Confine.Binds), Owner: e.Config.Tyrant}
	for i := range k.Binds {
		k.Binds[i].Pos = ini.Pos{} // where in the ini it stands changes no start
	}
	for _, w := range c.Confine.Writable {
		k.Writable = append(k.Writable, w.Path)
	}
	k.Reads = e.reads(r, c)
	named := c.Named()
	k.Hidden = e.hidden(k, named)
	k.Guarded = e.guarded()
	k.Named = slices.DeleteFunc(named, k.Sees) // other paths of these change nothing, and no start
	k.Ports, k.Counted = e.boundsOf(c).listens(countedPorts(c, r.level))
	k.Shared = !r.net
	if p.Umask < 0 {
		p.Umask = 0o022
	}
	p.Confined = k
}

// reads are the places that the app cannot begin without.
func (e *Emperor) reads(r *resolved, c *vassal.Config) (all []string) {
	add := func(path string) {
		if filepath.IsAbs(path) && path != "/" && !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	add(r.dir)
	add(c.Chdir)
	add(r.plan.Chdir)
	for _, d := range c.Attached {
		add(d.Chdir)
	}
	for _, program := range append(slices.Clone(r.plan.Programs), c.BinaryPath) {
		add(program)
	}
	if hook := r.plan.StartHook; hook != nil && hook.AsUser {
		add(hook.Args[0])
	}
	if args := c.Args(); len(args) > 0 {
		add(args[0])
	}
	return all
}

// hidden are the emperor's own folders, and those of inis: where apps have files
// of theirs, or begin, they are seen.
func (e *Emperor) hidden(k *vassal.Confined, named []string) (all []string) {
	if e.Instance != nil {
		all = append(all, e.Instance.State, e.Instance.Runtime)
	}
	for i := range e.Config.Monitors {
		if dir, err := filepath.Abs(e.Config.Monitors[i].Dir); err == nil && e.Config.Monitors[i].Dir != "" {
			all = append(all, dir)
		}
	}
	uses := func(dir string) bool {
		return slices.ContainsFunc(slices.Concat(k.Reads, named), func(path string) bool { return path == dir || filepath.Dir(path) == dir })
	}
	all = slices.DeleteFunc(all, func(dir string) bool { return dir == "/" || uses(dir) })
	slices.Sort(all)
	return slices.Compact(all)
}

// countedPorts are the TCP ports that the app may listen on, if they are counted.
// Those that it publishes count under strict alone: else a port is published
// while the app runs, and what it may do is fixed when it starts.
func countedPorts(c *vassal.Config, level vassal.Level) (ports []uint16, counted bool) {
	ports = slices.Clone(c.Confine.Ports)
	if strict := level == vassal.LevelStrict; len(ports) > 0 || !strict {
		return ports, len(ports) > 0
	}
	for _, p := range c.Publish {
		if p.Proto != unix.IPPROTO_TCP {
			continue
		}
		for n := range int(p.Last-p.First) + 1 {
			ports = append(ports, p.To+uint16(n))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), true
}

// deafPort is the first port of the app's that a TCP port of the host's leads to, and
// on which it may not listen; 0: there is none.
func deafPort(p vassal.Publish, listens []uint16) uint16 {
	for n := range int(p.Last-p.First) + 1 {
		if port := p.To + uint16(n); p.Proto == unix.IPPROTO_TCP && !slices.Contains(listens, port) {
			return port
		}
	}
	return 0
}

// unlistened warns of ports that lead to where the app may not listen.
func unlistened(c *vassal.Config, r *resolved) (warnings ini.Errors) {
	k := r.plan.Confined
	if k == nil || !k.Counted {
		return nil
	}
	for _, p := range c.Publish {
		if port := deafPort(p, k.Ports); port != 0 {
			warnings = append(warnings, ini.Error{Pos: p.Pos, Warning: true, Message: fmt.Sprintf("publish = %s: by listen-ports the app may not listen on %d; name that there, too", p, port)})
		}
	}
	return warnings
}

// withUser are the variables that tell who the app is.
func withUser(c *vassal.Config) []string {
	if c.UID == nil || c.UID.Name == "" || strings.Trim(c.UID.Name, "0123456789") == "" {
		return nil
	}
	return []string{"USER=" + c.UID.Name, "LOGNAME=" + c.UID.Name, "SHELL=/bin/sh"}
}
