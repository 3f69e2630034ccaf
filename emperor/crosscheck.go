package emperor

import (
	"fmt"
	"path/filepath"
	"strings"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// shadowed warns of rules of the vassal's devices that never decide.
func (e *Emperor) shadowed(c *vassal.Config) (errs ini.Errors) {
	specs := e.devices(c)
	for i := range specs {
		d := &specs[i]
		if n, err := e.networkOf(*d); err == nil && n != nil && n.Shadowed != nil {
			errs = append(errs, n.Shadowed(d)...)
		} else {
			errs = append(errs, d.Shadowed()...)
		}
	}
	return errs
}

// sockets says where each socket in the file system is spoken for.
type sockets map[string]string

// ownSockets are those of the emperor and his networks.
func (e *Emperor) ownSockets() sockets {
	s := sockets{filepath.Join(e.Config.Runtime, APISocket): "the emperor's control API", filepath.Join(e.Config.Runtime, ExecSocket): "the emperor's, for commands in jails"}
	if filepath.IsAbs(e.Config.Stats) {
		s[filepath.Clean(e.Config.Stats)] = "emperor-stats"
	}
	for _, n := range e.Networks {
		s[n.Socket] = "network " + n.Device
	}
	return s
}

// add notes the sockets of an app and warns of those that are another's: the
// second to start would take the path from the first. An app with a root of its
// own is left out: its paths are not the host's.
func (s sockets) add(c *vassal.Config) (errs ini.Errors) {
	if c.Chroot != "" || c.Isolation.Root != "" || c.Isolation.PivotRoot != "" || c.Isolation.Setns != "" {
		return nil
	}
	door := ""
	if a, err := parseAddress(c.Door, "/"); err == nil && a.isFile() {
		door = a.path // two vassals with one door are an error anyway
		s[door] = "the door of " + c.Name
	}
	for _, p := range c.Sockets() {
		path, _, _ := strings.Cut(p.Value, ",") // options of a uwsgi's socket
		if !filepath.IsAbs(path) || filepath.Clean(path) == door {
			continue
		}
		path = filepath.Clean(path)
		if holder, ok := s[path]; ok {
			errs = append(errs, ini.Error{Pos: p.Pos, Warning: true, Message: fmt.Sprintf("socket %s is that of %s too; the one that starts later takes it away", path, holder)})
			continue
		}
		s[path] = p.Pos.String()
	}
	return errs
}
