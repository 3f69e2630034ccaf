package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// joinCgroups makes the ini's cgroups, enters those of v1 trees and writes the
// options. Into one of the v2 tree the emperor has cloned us.
func (plan *Plan) joinCgroups() error {
	i := &plan.Isolation
	for _, dir := range i.Cgroups {
		v2, err := isV2(dir)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
		if v2 {
			continue
		}
		if err := i.makeCgroup(dir); err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
		// 0 is who writes, whatever its pid is called here (cgroups(7)).
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cgroup %s: enter: %w", dir, err)
		}
	}
	return i.writeCgroupOpts()
}

// makeCgroup makes a cgroup that is not there. What is no cgroup afterwards is
// a plain folder, which is removed again.
func (i *Isolation) makeCgroup(dir string) error {
	mode := fs.FileMode(defaultCgroupMode)
	if i.CgroupMode != nil {
		mode = fs.FileMode(*i.CgroupMode)
	}
	err := os.Mkdir(dir, mode)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		err = errors.New("it is in no cgroup file system; those are in /proc/self/mountinfo")
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	}
	return unix.Chmod(dir, uint32(mode)) // mkdir obeys the umask
}

// writeCgroupOpts writes each option where its file is: with several v1 trees
// that is one of them.
func (i *Isolation) writeCgroupOpts() error {
	for _, opt := range i.CgroupOpts {
		sep := strings.IndexAny(opt, "=:")
		file, value := opt[:sep], opt[sep+1:]
		written := false
		for _, dir := range i.Cgroups {
			f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				_, err = f.WriteString(value)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				return fmt.Errorf("cgroup-opt %s: %w", opt, err)
			}
			written = true
		}
		if !written {
			return fmt.Errorf("cgroup-opt %s: no cgroup of the ini has the file %s; its controller may be off in cgroup.subtree_control of the one above", opt, file)
		}
	}
	return nil
}

// isV2 says whether a path is, or would be, in the v2 tree.
func isV2(dir string) (bool, error) {
	at, err := nearestMount(dir)
	return at.FSType == "cgroup2", err
}

// nearestMount is what a path is, or would be, in; of several mounts at one
// place the newest.
func nearestMount(path string) (at mountinfo.Info, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(at.Mountpoint) {
			at = *m
		}
	}
	return at, err
}

// Above is the ini's cgroup of the v2 tree, made if it is not there: a
// generation's own is below it. It is empty if the ini names none.
func (i *Isolation) Above() (Cgroup, error) {
	above := ""
	for _, dir := range i.Cgroups {
		v2, err := isV2(dir)
		if err != nil {
			return "", fmt.Errorf("cgroup %s: %w", dir, err)
		}
		if !v2 {
			continue
		}
		if above != "" {
			return "", fmt.Errorf("cgroup %s: a process is in one cgroup of the v2 tree, and %s is one", dir, above)
		}
		if err := i.makeCgroup(dir); err != nil {
			return "", fmt.Errorf("cgroup %s: %w", dir, err)
		}
		above = dir
	}
	return Cgroup(above), nil
}
