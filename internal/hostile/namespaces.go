package hostile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const noNamespaces = "seccomp: no namespaces without capabilities"

var namespaceRows = []Row{
	{
		"user-namespace", "namespaces", "is root in a user namespace of its own (unshare)",
		noNamespaces, func(*Site) Finding { return born(&syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWUSER}) },
	},
	{
		"user-clone", "namespaces", "is root in a user namespace of its own (clone)",
		noNamespaces, func(*Site) Finding { return born(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}) },
	},
	{
		"user-clone3", "namespaces", "is root in a user namespace of its own (clone3, which hides its flags from filters)",
		"seccomp: there is no clone3", func(*Site) Finding { return judge(clone3(unix.CLONE_NEWUSER)) },
	},
	{
		"root-in-namespace", "namespaces", "mounts, and makes network devices, as root of a user namespace: what most holes in kernels ask for",
		noNamespaces, func(*Site) Finding {
			f := born(&syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}, "mount", "raw-ip", "set-link")
			return f
		},
	},
	{
		"other-namespaces", "namespaces", "makes namespaces of other kinds: network, processes, IPC, hostname, cgroups, time",
		"no capability; seccomp", func(*Site) Finding {
			for _, flag := range []uintptr{unix.CLONE_NEWNET, unix.CLONE_NEWPID, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWTIME} {
				err := sys(unix.SYS_UNSHARE, flag)
				if f := judge(err, unix.EINVAL); f.Outcome != Contained {
					return f
				}
			}
			return contained("%v", unix.EPERM)
		},
	},
	{
		"enter-namespace", "namespaces", "enters namespaces of processes that are not its own, by /proc/PID/ns (setns)",
		"processes of its own namespace; no capability", func(s *Site) Finding {
			return anyOf(s.strangersAndPID1(), func(pid int) Finding {
				for _, kind := range []string{"net", "uts", "ipc", "cgroup"} {
					fd, err := unix.Open(filepath.Join("/proc", itoa(pid), "ns", kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
					if err == nil {
						err = sys(unix.SYS_SETNS, uintptr(fd), 0)
						_ = unix.Close(fd)
					}
					if f := judge(err, unix.EINVAL); f.Outcome != Contained && !errors.Is(err, unix.ENOENT) {
						return f
					}
				}
				return contained("%v", unix.EPERM)
			})
		},
	},
	{
		"enter-by-pidfd", "namespaces", "enters the network of another process by its pidfd (setns)",
		"processes of its own namespace; no capability", func(s *Site) Finding {
			return anyOf(s.strangersAndPID1(), func(pid int) Finding {
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					return judge(err)
				}
				defer unix.Close(fd)
				err = sys(unix.SYS_SETNS, uintptr(fd), unix.CLONE_NEWNET)
				return judge(err, unix.EINVAL)
			})
		},
	},
	{
		"hostname", "namespaces", "renames the machine (sethostname)",
		"a hostname of its own; no capability; seccomp", func(*Site) Finding {
			name, err := os.Hostname()
			if err != nil {
				return unclear("%v", err)
			}
			return judge(unix.Sethostname([]byte(name))) // as it is called already
		},
	},
	{
		"shared-memory", "namespaces", "attaches to System V shared memory of the host's",
		"an IPC namespace of its own", func(s *Site) Finding {
			if s.Memory == nil {
				return absent("none is told of")
			}
			err := sys(unix.SYS_SHMAT, uintptr(*s.Memory), 0, unix.SHM_RDONLY)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) {
				return contained("there is none of that id: %v", err)
			}
			return judge(err)
		},
	},
}

// strangersAndPID1 are processes whose namespaces may be others than ours.
func (s *Site) strangersAndPID1() []int {
	pids := s.foreign()
	if network("1") == "" { // not to be looked at: its namespaces may be any
		pids = append(pids, 1)
	}
	return append(pids, ancestors(s.top)...)
}

// born starts this program in other namespaces, to try rows there. Without rows
// the start is what was tried.
func born(attr *syscall.SysProcAttr, rows ...string) Finding {
	self, err := os.Executable()
	if err != nil {
		return unclear("%v", err)
	}
	if len(rows) == 0 {
		rows = []string{rightsWord}
	}
	for _, row := range rows {
		cmd := exec.Command(self, "-row", row)
		cmd.Args[0], cmd.SysProcAttr = "hostile", attr
		out, err := cmd.Output()
		if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
			return judge(err, unix.ENOSPC, unix.EUSERS)
		}
		if row == rightsWord {
			return escaped("there it has %.60s", out)
		}
		if f, ok := findingOf(out); ok && f.Outcome == Escaped {
			return escaped("there it does: %s", row)
		}
	}
	return contained("there is such a namespace, and it may do nothing there")
}
