package hostile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var rootRows = []Row{
	{
		"descriptors", "the root", "looks for descriptors that it inherited, beside 0, 1 and 2",
		"the emperor's all close at exec", func(*Site) Finding { return inherited() },
	},
	{
		"working-directory", "the root", "climbs from its working directory, 64 times .., past its root",
		"chdir is resolved in the new root", func(*Site) Finding {
			return climbs()
		},
	},
	{
		"chroot", "the root", "changes its root to a folder and climbs out of it by its working directory",
		"no capability; seccomp", func(*Site) Finding {
			if err := unix.Chroot("/proc"); err != nil {
				return judge(err)
			}
			return climbs()
		},
	},
	{
		"roots-of-others", "the root", "reads files by /proc/PID/root and /proc/PID/cwd of processes that are not its own",
		"processes of its own namespace; who may trace whom", func(s *Site) Finding {
			return anyOf(append(s.foreign(), ancestors(s.top)...), func(pid int) Finding {
				for _, file := range []string{"root/", "cwd/"} {
					if err := canOpen(procPath(pid, file), unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
						return escaped("/proc/%d/%s", pid, file)
					}
				}
				return contained("%v", unix.EACCES)
			})
		},
	},
	{
		"pivot-root", "the root", "exchanges its root (pivot_root)",
		"no capability; seccomp", func(*Site) Finding { return judge(unix.PivotRoot(nowhere, nowhere), unix.ENOENT) },
	},
}

// inherited finds descriptors that outlived exec. Those that were opened since
// close at the next one: Go's always do.
func inherited() Finding {
	var open []string
	for _, fd := range numbers("/proc/self/fd") {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			open = append(open, fmt.Sprintf("%d (%s)", fd, target))
		}
	}
	if len(open) > 0 {
		return escaped("%s", few(open))
	}
	return contained("there is none")
}

// climbs compares where .. leads in the end with the root.
func climbs() Finding {
	var root, top unix.Stat_t
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return contained("%v", err)
		}
	}
	if err := errors.Join(unix.Stat("/", &root), unix.Stat(".", &top)); err != nil {
		return unclear("%v", err)
	}
	if root.Dev != top.Dev || root.Ino != top.Ino {
		return escaped("what is above all is not its root")
	}
	return contained("it comes to its root and no further")
}
