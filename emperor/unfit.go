package emperor

import (
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// Where instances have their directories, unless their inis say otherwise.
const (
	runtimeRoot = "/run/fiefdom"
	stateRoot   = "/var/lib/fiefdom"
)

// guarded are the folders and sockets that are the emperors' own.
func (e *Emperor) guarded() []string {
	all := []string{runtimeRoot, stateRoot}
	if e.Instance != nil {
		all = append(all, e.Instance.Runtime, e.Instance.State)
	}
	for i := range e.Networks {
		if socket := e.Networks[i].Socket; filepath.IsAbs(socket) {
			all = append(all, socket)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unfit is what an ini names as a place and cannot be one: the emperor's folders
// and sockets, what the kernel shows of whoever looks, and for an owner also what
// these are in, the host's devices, and others' inis. What a place is by other names
// the init stage finds.
func (e *Emperor) unfit(c *vassal.Config) string {
	dirs := []string{c.Chdir}
	for _, d := range c.Attached {
		dirs = append(dirs, d.Chdir)
	}
	for _, path := range dirs {
		if vassal.Under(path, "/proc") || e.Config.Tyrant && path != "" && e.guards(path) {
			return "chdir = " + path
		}
	}
	if root := c.Isolation.Root; c.Isolation.Rootfs && (e.guards(root) || e.Config.Tyrant && e.shows(c, root)) {
		return "rootfs = " + root
	}
	inRoot := c.Isolation.OwnRoot(c.Chroot) // whose places are others than the host's
	for _, w := range c.Confine.Writable {
		if !inRoot && (e.guards(w.Path) || e.Config.Tyrant && e.shows(c, w.Path)) {
			return "writable = " + w.Path
		}
	}
	for _, b := range c.Confine.Binds {
		if e.guards(b.Source) || e.Config.Tyrant && e.shows(c, b.Source) {
			return "bind = " + b.Source
		}
	}
	return ""
}

// guards says whether a path is the emperors' own.
func (e *Emperor) guards(path string) bool {
	return slices.ContainsFunc(e.guarded(), func(own string) bool { return vassal.Under(path, own) })
}

// shows says whether an owner's place would show something that is not his, as far
// as is known by its name.
func (e *Emperor) shows(c *vassal.Config, path string) bool {
	if vassal.Under(path, "/dev") || slices.ContainsFunc(e.guarded(), func(own string) bool { return vassal.Under(own, path) }) {
		return true
	}
	for name, v := range e.vassals {
		if name != c.Name && int(v.file.owner.uid) != c.UID.ID && vassal.Under(v.file.path, path) {
			return true
		}
	}
	for i := range e.Config.Monitors {
		dir, err := filepath.Abs(e.Config.Monitors[i].Dir)
		if err != nil || e.Config.Monitors[i].Dir == "" || ownedBy(dir, c.UID.ID) {
			continue
		}
		if vassal.Under(dir, path) || filepath.Dir(path) == dir && !isFolder(path) {
			return true // inis come and go
		}
	}
	return false
}

func isFolder(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

func ownedBy(dir string, uid int) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && int(st.Uid) == uid
}
