package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mapped is how the mounts of a vassal with a user namespace of its own show whose
// files are on disk, where nothing changes: mounts with mapped ids
// (MOUNT_ATTR_IDMAP). It is two user namespaces that nobody is in.
type mapped struct {
	places *os.File // as the app's user has rights on disk
	root   *os.File // of a root's tree: everybody has his own number; only for reading
	writes map[string]*os.File
}

// mapPlaces makes what shows the places, and those of a root that the ini brings,
// before that is entered.
func (plan *Plan) mapPlaces() error {
	if plan.Users == nil || plan.Confined == nil {
		return nil
	}
	uids, gids := plan.placeIDs()
	places, err := emptyUsers(uids, gids)
	if err != nil {
		return fmt.Errorf("userns = auto: %w", err)
	}
	m := &mapped{places: places, root: places, writes: map[string]*os.File{}}
	if !plan.Confined.Owner { // a tree of the operator's is the app's to read, root's files with it
		if m.root, err = emptyUsers(plan.Users.ids(), plan.Users.ids()); err != nil {
			return fmt.Errorf("userns = auto: %w", err)
		}
	}
	plan.mapped = m
	return nil
}

// emptyUsers is a user namespace with maps, by a process that ends at once.
func emptyUsers(uids, gids []syscall.SysProcIDMap) (*os.File, error) {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], InitStage}, &syscall.ProcAttr{ // without a plan it does nothing
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids},
	})
	if err != nil {
		return nil, fmt.Errorf("a map of ids: %w", explainClone(err, unix.CLONE_NEWUSER))
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	_ = unix.Kill(pid, unix.SIGKILL)
	_, werr := unix.Wait4(pid, nil, 0, nil)
	for errors.Is(werr, unix.EINTR) {
		_, werr = unix.Wait4(pid, nil, 0, nil)
	}
	return f, errors.Join(err, werr)
}

// show makes a mount that is nowhere yet show its files by a map.
func (m *mapped) show(tree, ids *os.File, recursive uint) error {
	err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH|recursive, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ids.Fd())})
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM):
		return fmt.Errorf("its file system, or one below it, cannot show files to a range of uids (%s): put it on ext4, xfs, btrfs or tmpfs, or leave out userns = auto", kindOf(tree))
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel cannot show files to a range of uids (Linux 5.12); leave out userns = auto")
	}
	return err
}

// kindOf names the file system of a file, for an error.
func kindOf(f *os.File) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err.Error()
	}
	names := map[int64]string{unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse", unix.SQUASHFS_MAGIC: "squashfs"}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", st.Type)
}

// showPlace makes a place of the ini's show whose its files are. Devices have no
// owner that counts.
func (c *cage) showPlace(tree *os.File) error {
	m := c.plan.mapped
	if m == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
		return err
	}
	if device := st.Mode & unix.S_IFMT; device == unix.S_IFCHR || device == unix.S_IFBLK {
		return nil
	}
	return m.show(tree, m.places, unix.AT_RECURSIVE)
}

// showAll does so with the mounts of the host's root, for the app to come as far as
// its user does. Where it cannot be the app is a stranger to all files, as their
// modes say; nothing there can be written.
func (c *cage) showAll(tree *os.File) error {
	m := c.plan.mapped
	if m == nil || c.plan.ownRoot() {
		return nil
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(m.places.Fd())}
	for _, mount := range mounts {
		if rel, err := filepath.Rel("/", mount.Mountpoint); err == nil {
			_ = unix.MountSetattr(int(tree.Fd()), rel, unix.AT_SYMLINK_NOFOLLOW, &attr)
		}
	}
	return nil
}

// openRoot copies the mount of a root that the ini brings: one of an owner's with his
// rights, and only his own.
func (plan *Plan) openRoot() (root *os.File, err error) {
	k := plan.Confined
	if k == nil || !k.Owner {
		if root, err = copyMount(plan.Isolation.Root, 0); err == nil {
			err = plan.mapRoot(root)
		}
		return root, err
	}
	uid, gid := plan.OnDisk()
	if err := seeFilesAs(uid, gid); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, seeFilesAs(0, 0)) }()
	at, err := openPlain(plan.Isolation.Root)
	if errors.Is(err, unix.ELOOP) {
		return nil, explainPlace("it", plan.Isolation.Root, err)
	}
	if err != nil {
		return nil, err
	}
	defer at.Close()
	fd, err := unix.OpenTree(int(at.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("copy the mount: %w", err)
	}
	root = os.NewFile(uintptr(fd), plan.Isolation.Root)
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return root, err
	}
	if int(st.Uid) != uid {
		return root, fmt.Errorf("it belongs to uid %d, and an owner's root has to be his own", st.Uid)
	}
	return root, plan.mapRoot(root)
}

// mapRoot makes the mount of a root that the ini brings show its files, and copies
// its writable places before: what shows files cannot be changed again.
func (plan *Plan) mapRoot(root *os.File) error {
	m := plan.mapped
	if m == nil {
		return nil
	}
	for _, path := range plan.Confined.Writable {
		at, err := unix.Openat2(int(root.Fd()), relative(path), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_BENEATH,
		})
		if errors.Is(err, unix.ENOENT) {
			continue // below /run or /tmp: there is nothing on disk
		}
		if err != nil {
			return explainPlace("writable "+path, path, err)
		}
		fd, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			return explainPlace("writable "+path, path, err)
		}
		m.writes[path] = os.NewFile(uintptr(fd), path)
	}
	return m.show(root, m.root, 0)
}

func relative(path string) string {
	rel, err := filepath.Rel("/", path)
	if err != nil {
		return "."
	}
	return rel
}
