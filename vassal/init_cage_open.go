package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// lookOutside opens what the cage of an ini's own root shows of the host, before
// that root is entered.
func (plan *Plan) lookOutside() (err error) {
	k := plan.Confined
	if k == nil || !plan.ownRoot() {
		return nil
	}
	binds := slices.Clone(k.Binds)
	for _, n := range nodes {
		path := filepath.Join(devices, n.name)
		binds = append(binds, Bind{Source: path, Target: path})
	}
	if k.Owner {
		uid, gid := plan.OnDisk()
		if err := seeFilesAs(uid, gid); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, seeFilesAs(0, 0)) }()
	}
	plan.outside = map[string]*os.File{}
	plan.lookAtGuards()
	for i, b := range binds {
		tree, err := openTree(b.Source)
		if err == nil && i < len(k.Binds) {
			err = plan.unguarded(b.Source, tree)
		}
		if err != nil {
			return explainPlace("bind "+b.Source, b.Source, err)
		}
		plan.outside[b.Target] = tree
	}
	return nil
}

// host copies the mount at a path of the host's, for a target.
func (c *cage) host(path, target string) (*os.File, bool, error) {
	tree, ok := c.plan.outside[target]
	if !ok {
		return c.open(path)
	}
	c.files = append(c.files, tree)
	file, err := isFile(tree)
	return tree, file, err
}

// explainPlace says what is wrong with a place of the ini's.
func explainPlace(what, path string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		real, _ := filepath.EvalSymlinks(path)
		return fmt.Errorf("%s is behind a symbolic link, which somebody might move; name %s", what, real)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no such file or folder; make it for the app's user", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// openPlaces opens what the ini names, with the rights of whoever wrote it.
func (c *cage) openPlaces() (err error) {
	if c.Owner {
		uid, gid := c.plan.OnDisk()
		if err := seeFilesAs(uid, gid); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.seeFilesAgain()) }()
	}
	for _, path := range c.Writable {
		if err := c.give("writable", path, path, false); err != nil {
			return err
		}
	}
	for _, b := range c.Binds {
		if err := c.give("bind", b.Source, b.Target, b.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// openKept opens what the app begins with, and plain files that the ini names, such
// as a script below /run: with the app's rights, as it would find them. Of a folder
// that is only named nobody knows whether it is to be shared, where others leave theirs.
func (c *cage) openKept() (err error) {
	if uid, gid := c.plan.OnDisk(); uid > 0 {
		if err := seeFilesAs(uid, max(gid, 0)); err != nil {
			return err
		}
		if len(c.plan.Groups) > 0 && !c.plan.OwnIDs && c.plan.Users == nil {
			if err := unix.Setgroups(c.plan.Groups); err != nil { // of this thread
				return err
			}
		}
		defer func() { err = errors.Join(err, c.seeFilesAgain()) }()
	}
	keep := slices.Clone(c.Reads)
	if c.plan.Resolv != "" || c.Shared {
		keep = append(keep, resolvConf) // a link into /run on many hosts
	}
	for _, tree := range systemTrees {
		if real, err := filepath.EvalSymlinks(tree); err == nil {
			if over := c.over(real); over != nil && over.kind == shut {
				keep = append(keep, tree)
			}
		}
	}
	guarded := func(path string) bool {
		return slices.ContainsFunc(c.Guarded, func(dir string) bool { return Under(path, dir) })
	}
	for _, path := range append(keep, c.Named...) {
		real, err := filepath.EvalSymlinks(path)
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(keep, path) { // it may come later, as what a uwsgi looks for to reload
			if path = filepath.Dir(path); !shared(path) {
				real, err = filepath.EvalSymlinks(path)
			}
		}
		if errors.Is(err, fs.ErrPermission) && slices.Contains(c.Reads, path) {
			what := ""
			if path == c.plan.Chdir {
				what = "chdir "
			}
			return mayNotEnter(fmt.Errorf("%s%s: %w", what, path, fs.ErrPermission), c.plan.UID)
		}
		if err != nil || real == "/" || guarded(real) {
			continue // the start says so, if it minds
		}
		needed := slices.Contains(keep, path)
		if c.led(path, needed) {
			continue
		}
		over := c.over(real)
		inShut := over != nil && over.kind == shut
		if !needed && !inShut && c.plan.UID > 0 && !c.Owner && unix.Faccessat(unix.AT_FDCWD, real, unix.W_OK, unix.AT_EACCESS) == nil {
			continue // what it wrote itself once, such as its pidfile, it makes anew. (An owner may have put it there)
		}
		if err := errors.Join(c.keep(c.whole(real, needed, inShut)), c.keep(c.linkFolder(path, real))); err != nil {
			return err
		}
		if slices.Contains(c.Reads, path) {
			for _, folder := range append(turnFolders(path), venvOf(path)) {
				if c.over(folder) == nil || guarded(folder) {
					continue // it is seen, or not to be
				}
				if err := c.keep(folder); err != nil {
					return err
				}
			}
		}
		c.addLinks(path)
	}
	return nil
}

// keep opens something that is to be seen where it would be gone else; empty: nothing.
func (c *cage) keep(path string) error {
	if path == "" {
		return nil
	}
	tree, file, err := c.open(path)
	if err != nil {
		return nil // as the app would find it
	}
	if c.plan.mapped != nil && !c.plan.ownRoot() {
		if c.showPlace(tree) != nil { // a mount below it cannot: it stays a stranger's, as for showAll
			_ = c.plan.mapped.show(tree, c.plan.mapped.places, 0)
		}
	}
	if err := narrow(tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV); err != nil {
		return err
	}
	c.add(&item{path: path, kind: kept, tree: tree, file: file})
	return nil
}

// linkFolder is where the link to a plain file lies, by which the ini names it: it
// is replaced by another, too.
func (c *cage) linkFolder(path, real string) string {
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil || filepath.Join(folder, filepath.Base(path)) == real || c.has(folder) || shared(folder) {
		return ""
	}
	if st, err := os.Stat(real); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	return folder
}

// whole is what is kept of a path. A plain file stands for its folder: it is replaced
// by another of its name when the app gets a new version, and others lie beside it; so
// does a socket in a shut folder. But folders that are of many are not to be seen for one
// file.
func (c *cage) whole(path string, needed, inShut bool) string {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return ""
	}
	kind := st.Mode & unix.S_IFMT
	switch folder := filepath.Dir(path); {
	case kind == unix.S_IFDIR && (needed || inShut && !shared(path)):
		return path
	case kind != unix.S_IFREG && (kind != unix.S_IFSOCK || !inShut) || c.has(path) && folder != "/":
		return ""
	case c.has(folder) || shared(folder):
		return path
	default:
		return folder
	}
}

func (c *cage) has(path string) bool {
	return slices.ContainsFunc(c.items, func(it *item) bool { return it.path == path })
}

// openHooked opens what hooks have mounted: that stays as they left it.
func (c *cage) openHooked() error {
	if c.plan.mounted == nil {
		return nil
	}
	now, err := mountpoints()
	if err != nil {
		return err
	}
	for path, n := range now {
		if n <= c.plan.mounted[path] || path == "/" || Under(path, "/proc") || Under(path, "/sys") {
			continue
		}
		tree, file, err := c.open(path)
		if err != nil {
			return fmt.Errorf("mount %s of a hook: %w", path, err)
		}
		if err := narrow(tree, unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
		c.add(&item{path: path, kind: given, tree: tree, file: file})
	}
	return nil
}

// noteMounts looks at what is mounted before hooks change it.
func (plan *Plan) noteMounts() (err error) {
	if plan.Confined != nil && !plan.ownRoot() && plan.hooked() {
		// What the host mounts meanwhile is no hook's.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("private mounts: %w", err)
		}
		plan.mounted, err = mountpoints()
	}
	return err
}

// mountpoints counts the mounts of this namespace at each place.
func mountpoints() (map[string]int, error) {
	mounts, err := mountinfo.GetMounts(nil)
	all := map[string]int{}
	for _, m := range mounts {
		all[m.Mountpoint]++
	}
	return all, err
}

// seeFilesAgain ends what seeFilesAs began. Where root is nobody whom the vassal's
// user namespace knows, there is no way back, and nothing more to be done as root.
func (c *cage) seeFilesAgain() error {
	if c.plan.OwnIDs {
		return nil
	}
	return seeFilesAs(0, 0)
}

// give opens a place of the ini's.
func (c *cage) give(option, source, target string, readOnly bool) error {
	from := func() (*os.File, bool, error) { return c.open(source) }
	if option == "bind" {
		from = func() (*os.File, bool, error) { return c.host(source, target) }
	} else if m := c.plan.mapped; m != nil && m.writes[source] != nil {
		from = func() (*os.File, bool, error) {
			c.files = append(c.files, m.writes[source])
			file, err := isFile(m.writes[source])
			return m.writes[source], file, err
		}
	}
	tree, file, err := from()
	if err == nil && (option != "bind" || c.plan.outside[target] == nil) { // else that was done outside
		err = c.plan.unguarded(source, tree)
	}
	if err != nil {
		return explainPlace(option+" "+source, source, err)
	}
	if err := c.showPlace(tree); err != nil {
		return fmt.Errorf("%s %s: %w", option, source, err)
	}
	attributes := uint64(unix.MOUNT_ATTR_NODEV)
	var st unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
		return err
	}
	if device := st.Mode & unix.S_IFMT; !c.Owner && (device == unix.S_IFCHR || device == unix.S_IFBLK) {
		attributes = 0 // it is named for that
	}
	if readOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	} else if c.strict() {
		attributes |= unix.MOUNT_ATTR_NOEXEC
	}
	if err := narrow(tree, attributes); err != nil {
		return fmt.Errorf("%s %s: %w", option, source, err)
	}
	c.add(&item{path: target, kind: given, tree: tree, file: file})
	return nil
}
