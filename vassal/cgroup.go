package vassal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Cgroup is a directory of the v2 tree. Generations are cloned into one and
// ended by its cgroup.kill, so that no child survives (cgroups(7)).
type Cgroup string

// OwnCgroup finds the caller's cgroup in the v2 tree. Where there is no such
// tree the error says so; the kernel must be 5.14 or newer for cgroup.kill.
func OwnCgroup() (Cgroup, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return "", err
	}
	if len(mounts) == 0 {
		return "", errors.New("no cgroup2 file system is mounted")
	}
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		path, ok := strings.CutPrefix(lines.Text(), "0::")
		if !ok {
			continue
		}
		rel, err := filepath.Rel(mounts[0].Root, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			rel = "." // the mount shows a part of the tree that we are not in
		}
		return Cgroup(filepath.Join(mounts[0].Mountpoint, rel)), nil
	}
	return "", errors.New("/proc/self/cgroup has no v2 line")
}

// Make makes the child cgroup name of c.
func (c Cgroup) Make(name string) (Cgroup, error) {
	child := Cgroup(filepath.Join(string(c), name))
	if err := os.Mkdir(string(child), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	if _, err := os.Stat(child.file("cgroup.kill")); err != nil {
		return "", errors.Join(fmt.Errorf("cgroup %s cannot be killed as a whole; that takes Linux 5.14", child), os.Remove(string(child)))
	}
	return child, nil
}

func (c Cgroup) file(name string) string { return filepath.Join(string(c), name) }

// Open returns a descriptor for clone3's CLONE_INTO_CGROUP.
func (c Cgroup) Open() (*os.File, error) {
	return os.OpenFile(string(c), os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// Kill kills every process in c and below it.
func (c Cgroup) Kill() error {
	err := os.WriteFile(c.file("cgroup.kill"), []byte("1"), 0)
	if removed(err) {
		return nil
	}
	return err
}

// removed says that the cgroup is gone; one that went while its file was open
// is ENODEV.
func removed(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// populated says whether a process is left in c or below it.
func (c Cgroup) populated() (bool, error) {
	b, err := os.ReadFile(c.file("cgroup.events"))
	if removed(err) {
		return false, nil
	}
	return strings.Contains(string(b), "populated 1"), err
}

// Remove kills what is left in c and below it, waits until it is gone, and
// removes the directories.
func (c Cgroup) Remove(ctx context.Context) error {
	if _, err := os.Stat(string(c)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := c.Kill(); err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	wait := time.Millisecond
	for {
		left, err := c.populated()
		if err != nil {
			return err
		}
		if !left {
			break
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 50*time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("cgroup %s still has processes: %w", c, ctx.Err())
		}
	}
	return c.removeTree()
}

func (c Cgroup) removeTree() error {
	entries, err := os.ReadDir(string(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, Cgroup(c.file(e.Name())).removeTree())
		}
	}
	if err := unix.Rmdir(string(c)); err != nil && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("remove cgroup %s: %w", c, err))
	}
	return errors.Join(errs...)
}

// discard removes the cgroup of a clone that failed.
func (c Cgroup) discard() error {
	if c == "" {
		return nil
	}
	return c.Remove(context.Background())
}

// everybody is who is in c or below it.
func (c Cgroup) everybody() []int {
	pids, err := c.members()
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	const alone = 2 // links of a folder without folders
	if unix.Stat(string(c), &st) != nil || st.Nlink <= alone {
		return pids
	}
	entries, err := os.ReadDir(string(c))
	if err != nil {
		return pids
	}
	for _, e := range entries {
		if e.IsDir() {
			pids = append(pids, Cgroup(c.file(e.Name())).everybody()...)
		}
	}
	return pids
}

// killAtOnce bounds the descriptors that killEach has open.
const killAtOnce = 64

// killEach kills who is in c or below it now, and nobody who has got the number
// of one that ended meanwhile: who is a member still when his pidfd is open is
// whom it means, or the pidfd is of somebody who has ended.
func (c Cgroup) killEach() {
	for some := range slices.Chunk(c.everybody(), killAtOnce) {
		fds := map[int]int{}
		for _, pid := range some {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				fds[pid] = fd
			}
		}
		for _, pid := range c.everybody() {
			if fd, known := fds[pid]; known {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}
