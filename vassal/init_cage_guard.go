package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// guard is a folder of which no place of an ini's may be a part, by what it is:
// a mount elsewhere shows the same one.
type guard struct {
	path string
	dev  uint64
	ino  uint64
}

// veil is where a bind would show what the cage hides elsewhere.
type veil struct {
	target string
	file   bool
}

// lookAtGuards looks, as root and in the host's root, at what no place may show.
func (plan *Plan) lookAtGuards() {
	k := plan.Confined
	if k == nil || plan.guarded {
		return
	}
	plan.guarded = true
	var st unix.Stat_t
	guarded := k.Guarded
	if k.Owner {
		guarded = append(slices.Clip(guarded), devices)
	}
	for _, path := range guarded {
		if unix.Stat(path, &st) == nil {
			plan.guards = append(plan.guards, guard{path, st.Dev, st.Ino})
		}
	}
	for _, b := range k.Binds {
		for _, path := range slices.Concat(secrets, k.Hidden, k.Guarded) {
			real, err := filepath.EvalSymlinks(path)
			if err != nil || real == b.Source || !Under(real, b.Source) || unix.Stat(real, &st) != nil {
				continue
			}
			rel, err := filepath.Rel(b.Source, real)
			if err == nil {
				plan.veils = append(plan.veils, veil{filepath.Join(b.Target, rel), st.Mode&unix.S_IFMT != unix.S_IFDIR})
			}
		}
	}
}

// unguarded says why a place cannot be one: it is the emperor's, the kernel's, or,
// for an owner, the host's devices.
func (plan *Plan) unguarded(path string, tree *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(tree.Fd()), &fs); err != nil {
		return err
	}
	if slices.Contains(kernelMagic, fs.Type) {
		return errKernels
	}
	// The way down to a place has no links, so whatever it is a part of lies on it.
	for at := path; at != "/"; at = filepath.Dir(at) {
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return err
		}
		for _, g := range plan.guards {
			if st.Dev == g.dev && st.Ino == g.ino {
				return fmt.Errorf("that is a part of %s, of which nothing is given away", g.path)
			}
		}
	}
	return nil
}

var errKernels = errors.New("that is what the kernel shows of the host, and nothing of it is given away; write confine = compat")

// What the kernel shows of the whole machine, or of whoever looks: as statfs(2)
// has it, and as mounts are called.
var (
	kernelMagic = []int64{
		unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
		unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC,
	}
	kernelMounts = []string{
		"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf", "pstore", "efivarfs", "binfmt_misc", "configfs", "devtmpfs", "devpts",
	}
)

// letGoOfKernel takes away what the kernel shows of the host in other places than
// the usual ones, which are the vassal's own by now: somebody's chroot below a
// place has a /proc of the host's.
func (c *cage) letGoOfKernel() error {
	shown := func(it *item) bool { return it.kind == given && !Under(it.path, devices) || it.kind == kept }
	if !slices.ContainsFunc(c.items, shown) && len(c.Reads)+len(c.Named) == 0 {
		return nil // of the host's it sees the system's trees alone
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) { // those below others are later
		path := m.Mountpoint
		own := func(folder string) bool { return Under(path, folder) }
		if !slices.Contains(kernelMounts, m.FSType) || slices.ContainsFunc([]string{"/proc", "/sys", devices}, own) || c.has(path) {
			continue // of a place that the ini names it is known what it is
		}
		// One that is locked to its parent (mount_namespaces(7)) stays, and one that is covered is not seen.
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && c.seesKernel(path) {
			return fmt.Errorf("let go of %s, which shows the host's: %w; name what the app needs beside it", path, err)
		}
	}
	return nil
}

// seesKernel says whether the app would find something of the kernel's at a path.
func (c *cage) seesKernel(path string) bool {
	var fs unix.Statfs_t
	place := func(it *item) bool { return it.tree != nil && Under(path, it.path) }
	return slices.ContainsFunc(c.items, place) && unix.Statfs(path, &fs) == nil && slices.Contains(kernelMagic, fs.Type)
}
