package hostile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const ownCgroup = "mounts that are read-only; who owns the cgroup"

var cgroupRows = []Row{
	{"leave-cgroup", "cgroups", "moves itself into another cgroup, out of its limits (cgroup.procs)", ownCgroup, func(*Site) Finding {
		return inCgroups(func(dir string) Finding { return opens(filepath.Join(dir, "cgroup.procs"), unix.O_WRONLY) })
	}},
	{"own-budget", "cgroups", "raises its own limits (memory.max, pids.max, cpu.max)", ownCgroup, func(*Site) Finding {
		return inCgroups(func(dir string) Finding {
			return anyOf(existing(dir+"/*.max", dir+"/*limit*", dir+"/cgroup.freeze", dir+"/cgroup.kill", dir+"/cgroup.subtree_control"),
				func(path string) Finding { return opens(path, unix.O_WRONLY) })
		})
	}},
	{"make-cgroup", "cgroups", "makes cgroups", ownCgroup, func(*Site) Finding {
		return inCgroups(func(dir string) Finding {
			path := filepath.Join(dir, "of-hostile")
			err := unix.Mkdir(path, 0o700)
			if err == nil {
				_ = unix.Rmdir(path)
			}
			if errors.Is(err, unix.ENOENT) {
				return absent("%v", err)
			}
			return judge(err, unix.EEXIST)
		})
	}},
	{"release-agent", "cgroups", "names a program of its own that the host runs when a cgroup is empty (release_agent)", ownCgroup, func(*Site) Finding {
		return anyOf(existing("/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/*/release_agent"), func(path string) Finding { return opens(path, unix.O_WRONLY) })
	}},
	{"mount-cgroup", "cgroups", "mounts the tree of cgroups anew, writable", noMounts, func(*Site) Finding {
		return inside(func(dir string) Finding {
			err := unix.Mount("cgroup2", dir, "cgroup2", 0, "")
			if err == nil {
				_ = unix.Unmount(dir, unix.MNT_DETACH)
			}
			return judge(err, unix.EBUSY, unix.ENODEV)
		})
	}},
	{"see-cgroups", "cgroups", "reads what the host's other services use (/sys/fs/cgroup)", "a mask; a cgroup namespace", (*Site).seesCgroups},
}

// seesCgroups looks for processes that are not ours in all cgroups that are shown.
func (s *Site) seesCgroups() Finding {
	seen := 0
	f := contained("there is none")
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "cgroup.procs" {
			return nil
		}
		seen++
		f.Detail = fmt.Sprintf("in %d cgroups there is nobody else", seen)
		text, _ := os.ReadFile(path)
		for word := range strings.FieldsSeq(string(text)) {
			// 0 is one that is in another pid namespace.
			if pid, err := strconv.Atoi(word); err == nil && (pid == 0 || !s.ours(pid)) {
				f = escaped("it sees process %d in %s", pid, path)
				return fs.SkipAll
			}
		}
		return nil
	})
	return f
}

// inCgroups tries something on this program's own cgroup and the one above, in
// every tree that is mounted.
func inCgroups(try func(dir string) Finding) Finding {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return contained("%v", err)
	}
	var dirs []string
	for line := range strings.Lines(string(text)) {
		words := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(words) < 3 {
			continue
		}
		for _, tree := range append([]string{"", "unified", "systemd"}, strings.Split(words[1], ",")...) {
			dir := filepath.Join("/sys/fs/cgroup", tree, words[2])
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				dirs = append(dirs, dir, filepath.Dir(dir))
			}
		}
	}
	if len(dirs) == 0 {
		return contained("it sees no cgroup")
	}
	for _, dir := range dirs {
		if f := try(dir); f.Outcome == Escaped { // and no further: they are the machine's
			return f
		}
	}
	return anyOf(dirs, try)
}
