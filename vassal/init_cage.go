package vassal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cage is how a confined app comes to see its files: the system's trees as they were,
// but read-only; small folders of its own where programs expect to write; the places
// that its ini names; new /proc, /sys and /dev; nothing where secrets are, and nothing
// else of the host's.
//
// Every mount is made apart and put in its place by descriptors, without following
// a link there; at the end each place is compared with what was put there.
type cage struct {
	*Confined
	plan    *Plan
	items   []*item
	scratch *os.File   // the file system of what is the vassal's own, mounted at base
	base    string     // while the cage is built
	files   []*os.File // to close
	links   int        // that were added
}

// item is a mount that the cage puts somewhere.
type item struct {
	path string
	kind itemKind
	tree *os.File // the mount; nil: made by the cage
	file bool     // no folder
	name string   // of the folder in scratch
	veil bool     // it lies on what a bind shows, which is not there yet

	target string // of a link
	above  *item  // the nearest that it lies below; nil: none
	holds  bool   // something is to be seen below it
}

type itemKind int

const (
	private itemKind = iota // an empty folder of the vassal's own
	hidden                  // nothing is seen there
	given                   // the ini names it, or it is of the cage
	kept                    // what the app needs to begin; seen where it would be gone else
	shut                    // at the top of the host's tree: only what is named is seen there
	symlink                 // on the way to something that is seen
)

// cage builds the cage. Hooks as root have run, and what they mounted is seen.
func (plan *Plan) cage() error {
	if plan.Confined == nil || plan.Joined || plan.Inside {
		return nil
	}
	c := &cage{Confined: plan.Confined, plan: plan}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	defer c.close()
	if err := c.openAll(); err != nil {
		return err // which names the place
	}
	for _, step := range []func() error{c.seal, c.trim, c.makeScratch, c.newProc, c.newSys, c.furnish, c.putAll, c.letGoOfKernel} {
		if err := step(); err != nil {
			return fmt.Errorf("confine = %s: %w", plan.Confined.Level, err)
		}
	}
	// The folder where we are may be one that was covered.
	if os.Chdir(dir) != nil {
		return os.Chdir("/")
	}
	return nil
}

func (c *cage) close() {
	for _, f := range c.files {
		_ = f.Close() // descriptors of places, which have nothing to say
	}
}

func (c *cage) own(fd int, name string) *os.File {
	f := os.NewFile(uintptr(fd), name)
	c.files = append(c.files, f)
	return f
}

// privatePlaces are where programs expect to write. /run is for what the
// app's root has: it is the vassal's, and empty.
var privatePlaces = []struct {
	path string
	mode uint32
}{
	{"/dev", 0o755}, {"/dev/shm", 0o1777}, {"/run", 0o755}, {"/tmp", 0o1777}, {"/var/tmp", 0o1777},
}

// openAll opens what the cage will show, while it can be seen.
func (c *cage) openAll() error {
	for i, p := range privatePlaces {
		path, err := filepath.EvalSymlinks(p.path)
		if err != nil && len(c.items) > 0 && filepath.Dir(p.path) == devices && c.items[0].path == devices {
			path, err = p.path, nil // in a /dev of our own everything can be made
		}
		if err == nil {
			c.add(&item{path: path, kind: private, name: fmt.Sprint("own", i)})
		}
	}
	hide := slices.Concat(secrets, c.Hidden)
	if c.plan.ownRoot() {
		hide = nil // whose root it is knows what is in it
	}
	if c.plan.UID <= 0 && len(hide) > 0 {
		theirs, err := rootsAlone("/etc")
		if err != nil {
			return err
		}
		hide = append(hide, theirs...)
	}
	for _, path := range hide {
		// Where the host's root has a link there, it is the target that counts.
		if path, err := filepath.EvalSymlinks(path); err == nil {
			c.add(&item{path: path, kind: hidden, name: fmt.Sprint("hidden", len(c.items))})
		}
	}
	c.plan.lookAtGuards()
	for _, open := range []func() error{c.shutTop, c.openPlaces, c.openHooked, c.openNodes, c.openKept} {
		if err := open(); err != nil {
			return err
		}
	}
	for i, v := range c.plan.veils {
		c.add(&item{path: v.target, kind: hidden, name: fmt.Sprint("veil", i), veil: true, file: v.file})
	}
	slices.SortStableFunc(c.items, func(a, b *item) int { return cmp.Compare(a.path, b.path) })
	c.items = slices.DeleteFunc(c.items, c.needless)
	for _, it := range c.items {
		if it.above = c.above(it.path); it.above != nil {
			it.above.holds = true
		}
	}
	return nil
}

// add adds an item; of several at one place what the ini names counts, and what
// was added first.
func (c *cage) add(it *item) {
	for i, other := range c.items {
		switch {
		case other.path != it.path:
		case it.kind == given && other.kind != given, it.kind == kept && (other.kind == hidden || other.kind == shut):
			c.items[i] = it
			return
		default:
			return
		}
	}
	c.items = append(c.items, it)
}

// above is the nearest item that a path is below. Both are clean, and the root is no item.
func (c *cage) above(path string) (nearest *item) {
	for _, it := range c.items {
		if strings.HasPrefix(path, it.path) && len(path) > len(it.path) && path[len(it.path)] == '/' && (nearest == nil || len(it.path) > len(nearest.path)) {
			nearest = it
		}
	}
	return nearest
}

// over is the nearest item that a path is at or below.
func (c *cage) over(path string) *item {
	for _, it := range c.items {
		if it.path == path {
			return it
		}
	}
	return c.above(path)
}

// needless says of what is seen anyway, or is not there to be hidden.
func (c *cage) needless(it *item) bool {
	above := c.above(it.path)
	covered := above != nil && (above.kind == private || above.kind == hidden || above.kind == shut)
	switch it.kind {
	case kept, symlink:
		return !covered
	case hidden:
		return covered
	}
	return false
}

// open copies the mount at a path, with those below it, without following a link.
func (c *cage) open(path string) (tree *os.File, file bool, err error) {
	if tree, err = openTree(path); err != nil {
		return nil, false, err
	}
	c.files = append(c.files, tree)
	file, err = isFile(tree)
	return tree, file, err
}

func openTree(path string) (*os.File, error) {
	at, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	fd, err := unix.OpenTree(int(at.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return nil, fmt.Errorf("copy the mount: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func isFile(f *os.File) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Mode&unix.S_IFMT != unix.S_IFDIR, err
}

// openPlain opens a path in which nothing is a link.
func openPlain(path string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// narrow takes rights from a tree of mounts; programs with rights of their own
// never have them here.
func narrow(tree *os.File, attributes uint64) error {
	err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set:    attributes | unix.MOUNT_ATTR_NOSUID,
		Propagation: unix.MS_PRIVATE, // what the host mounts below it later is not seen
	})
	return explainSetattr(err)
}

func explainSetattr(err error) error {
	if errors.Is(err, unix.ENOSYS) {
		return errors.New("this kernel cannot make mounts read-only at once (Linux 5.12); write confine = compat")
	}
	return err
}

// seal makes a copy of everything that is there the root, read-only. It is a copy
// since a log, or a process of a hook, may have files of the old root open for writing.
func (c *cage) seal() error {
	tree, _, err := c.open("/")
	if err == nil {
		err = c.showAll(tree)
	}
	if err == nil {
		err = explainSetattr(unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
			Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
			Propagation: unix.MS_PRIVATE, // what the host mounts later is not seen
		}))
	}
	if err == nil {
		err = put(tree, "/")
	}
	if err == nil {
		err = becomeRoot(tree)
	}
	if err != nil {
		return fmt.Errorf("a root that is read-only: %w", err)
	}
	return nil
}

// trim lets go of mounts that the app has nothing to do with: who unmounts them on
// the host means to have them gone. In a root that the ini brings all are meant.
func (c *cage) trim() error {
	if c.plan.ownRoot() {
		return nil
	}
	needed := slices.Concat(systemTrees, c.Reads, c.Named, c.Writable, []string{"/proc", "/sys", devices})
	for _, it := range c.items {
		if it.kind != shut {
			needed = append(needed, it.path)
		}
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) { // those below others are later
		apart := func(path string) bool { return !Under(m.Mountpoint, path) && !Under(path, m.Mountpoint) }
		if !slices.ContainsFunc(needed, func(path string) bool { return !apart(path) }) {
			// One that is locked to its parent (mount_namespaces(7)) stays; one is gone if the host has removed its folder.
			err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("let go of %s: %w", m.Mountpoint, err)
			}
		}
	}
	return nil
}

// becomeRoot makes a mount the root, and lets go of the old one; in a chroot it
// stays below, where no path leads.
func becomeRoot(root *os.File) error {
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return err
	}
	err := unix.PivotRoot(".", ".") // the old root goes on top of the new one (pivot_root(2))
	if errors.Is(err, unix.EINVAL) {
		err = unix.Chroot(".")
	} else if err == nil {
		err = unix.Unmount(".", unix.MNT_DETACH)
	}
	return errors.Join(err, os.Chdir("/"))
}

// putAll takes the base away and puts every item in its place, parents first.
func (c *cage) putAll() error {
	if err := unix.Unmount(c.base, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave %s: %w", c.base, err)
	}
	for _, it := range c.items {
		if it.tree == nil {
			continue // there is no such folder to lie on
		}
		err := put(it.tree, it.path)
		if it.kind == hidden && errors.Is(err, fs.ErrNotExist) {
			it.tree = nil // the host has just removed it
		} else if err != nil {
			return fmt.Errorf("mount %s: %w", it.path, err)
		}
	}
	for _, it := range c.items {
		if it.tree == nil || c.coveredLater(it) {
			continue
		}
		if err := same(it.tree, it.path); err != nil {
			return err
		}
	}
	return nil
}

// coveredLater says of an item that another lies on now: nobody sees it.
func (c *cage) coveredLater(it *item) bool {
	return slices.ContainsFunc(c.items, func(o *item) bool { return o != it && o.path == it.path && o.tree != nil })
}

// put moves a mount onto what is at a path, no links followed.
func put(tree *os.File, path string) error {
	at, err := openPlain(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; make it on the host, or choose a place below /run or /tmp", err)
		}
		return err
	}
	defer at.Close()
	return unix.MoveMount(int(tree.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// same says whether what is seen at a path is what was put there.
func same(tree *os.File, path string) error {
	var want, got unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &want); err != nil {
		return err
	}
	at, err := openPlain(path)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := unix.Fstat(int(at.Fd()), &got); err != nil {
		return err
	}
	if want.Dev != got.Dev || want.Ino != got.Ino || want.Mode != got.Mode || want.Rdev != got.Rdev {
		return fmt.Errorf("at %s is not what was put there", path)
	}
	return nil
}
