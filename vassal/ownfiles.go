package vassal

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
)

// KeepFiles puts the files that are the vassal's own in place of the host's again,
// where they are not. Whoever replaces a file of the host's by another, as most tools
// do with these, takes away what is mounted there in all namespaces (rename(2)).
func (g *Generation) KeepFiles() error {
	plan := &g.launch.Plan
	if !plan.Mounts || plan.Isolation.PivotRoot != "" || plan.Isolation.Root != "" {
		return nil // its root is none that the host's tools know
	}
	ns, err := g.mounts()
	if ns == nil || err != nil {
		return err
	}
	defer ns.Close()
	for _, f := range []struct{ own, path string }{{plan.Resolv, resolvConf}, {plan.Hosts, hostsFile}} {
		if f.own == "" {
			continue
		}
		if err := keepFileIn(ns, f.own, f.path, plan.Confined != nil); err != nil {
			return fmt.Errorf("private %s: %w", f.path, err)
		}
	}
	return nil
}

func keepFileIn(ns *os.File, own, path string, confined bool) error {
	want, err := os.Stat(own)
	if err != nil {
		return err
	}
	tree, err := copyMount(own, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	if confined {
		if err := narrow(tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return err
		}
	}
	return netns.InMounts(int(ns.Fd()), func() error {
		has, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && os.SameFile(has, want) {
			return nil
		}
		if err != nil {
			return err
		}
		return unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	})
}

// mounts opens the generation's mount namespace; nil if nobody is there any more, or
// where it is one that the app has made for itself.
func (g *Generation) mounts() (*os.File, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ground != nil {
		return g.ground.mounts()
	}
	if g.over || g.waited || !g.holdsPID() || g.sameUsers() != nil {
		return nil, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", g.PID))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return nil, nil
	case err == nil && (!g.holdsPID() || g.sameUsers() != nil): // it may be another by now, see invite
		return nil, f.Close()
	}
	return f, err
}

// mounts is a copy of the descriptor of the mount namespace, which is the last.
func (g *ground) mounts() (*os.File, error) {
	g.looking.RLock()
	defer g.looking.RUnlock()
	if g.closed || len(g.namespaces) == 0 {
		return nil, nil
	}
	fd, err := unix.FcntlInt(g.namespaces[len(g.namespaces)-1].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "mnt"), nil
}
