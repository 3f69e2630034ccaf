package vassal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// enterRoot makes the folder of namespace the root, with the kept mounts and a
// /proc of its own, and lets go of everything else. Paths inside the new root
// are resolved in it: what its owner links there leads nowhere outside.
func (plan *Plan) enterRoot() (err error) {
	iso := &plan.Isolation
	if iso.Root == "" {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", iso.rootOption(), iso.Root, err)
		}
	}()
	if iso.Hostname != "" {
		if err := unix.Sethostname([]byte(iso.Hostname)); err != nil {
			return fmt.Errorf("hostname %s: %w", iso.Hostname, err)
		}
	}
	// Copies of the mounts, before the new root covers what is below it.
	trees := make([]*os.File, len(iso.Keep))
	for i, k := range iso.Keep {
		if trees[i], err = copyMount(k.Source, unix.AT_RECURSIVE); err != nil {
			return err
		}
		defer trees[i].Close()
	}
	root, err := plan.openRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, iso.Root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount it: %w", err)
	}
	for i, k := range iso.Keep {
		if err := attach(trees[i], root, k.target(iso.Root)); err != nil {
			return fmt.Errorf("keep %s at %s: %w", k.Source, k.target(iso.Root), err)
		}
	}
	if plan.Resolv != "" {
		if err := keepFile(root, resolvConf); err != nil {
			return err
		}
	}
	if plan.Hosts != "" {
		if err := keepFile(root, hostsFile); err != nil {
			return err
		}
	}
	if err := mountProc(root); err != nil {
		return err
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return err
	}
	// The old root goes on top of the new one, and then away (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return os.Chdir("/")
}

// rootOption is what names the root in the ini.
func (i *Isolation) rootOption() string {
	if i.Rootfs {
		return "rootfs"
	}
	return "namespace"
}

// copyMount is a copy of the mount, or the part of one, at a path; with
// AT_RECURSIVE of those below it too.
func copyMount(path string, recursive uint) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|recursive)
	if err != nil {
		return nil, fmt.Errorf("copy the mount at %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// inRoot opens a path as a process with that root would see it.
func inRoot(root *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// attach puts a copied mount at a path of the new root.
func attach(tree, root *os.File, path string) error {
	at, err := inRoot(root, path)
	if err != nil {
		return fmt.Errorf("%w; make it in the root", err)
	}
	defer at.Close()
	return unix.MoveMount(int(tree.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// keepFile takes a file of the vassal's own along, which lies on the old root's
// already, where the new root has such a file.
func keepFile(root *os.File, path string) error {
	tree, err := copyMount(path, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := attach(tree, root, path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("private %s: %w", path, err)
	}
	return nil
}

func mountProc(root *os.File) error {
	at, err := inRoot(root, "/proc")
	if err != nil {
		return fmt.Errorf("%w; make the folder proc in the root", err)
	}
	defer at.Close()
	// By the old root's /proc, as mount(2) takes no descriptor.
	err = unix.Mount("proc", fmt.Sprintf("/proc/self/fd/%d", at.Fd()), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil {
		return fmt.Errorf("private /proc: %w", err)
	}
	return nil
}

// changeRoot is chroot, then pivot_root.
func (plan *Plan) changeRoot() error {
	if plan.Chroot != "" {
		if err := unix.Chroot(plan.Chroot); err != nil {
			return fmt.Errorf("chroot %s: %w", plan.Chroot, err)
		}
		if err := os.Chdir("/"); err != nil {
			return fmt.Errorf("chroot %s: %w", plan.Chroot, err)
		}
	}
	iso := &plan.Isolation
	if iso.PivotRoot == "" {
		return nil
	}
	err := func() error {
		// The kernel refuses where a mount could appear on the host too.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := os.Chdir(iso.PivotRoot); err != nil {
			return err
		}
		if err := unix.PivotRoot(iso.PivotRoot, iso.PivotOld); err != nil {
			if errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w (is %s a mount? hook-post-jail = mount:none %s %s bind makes it one)", err, iso.PivotRoot, iso.PivotRoot, iso.PivotRoot)
			}
			return err
		}
		return os.Chdir("/")
	}()
	if err != nil {
		return fmt.Errorf("pivot_root %s %s: %w", iso.PivotRoot, iso.PivotOld, err)
	}
	return nil
}
