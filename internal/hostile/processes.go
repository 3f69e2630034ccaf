package hostile

import (
	"errors"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

const ownProcesses = "processes of its own namespace"

var processRows = []Row{
	{
		"see-processes", "processes", "lists processes that are not its own (/proc)",
		ownProcesses + ", and a /proc of it", func(s *Site) Finding {
			if pids := s.foreign(); len(pids) > 0 {
				return escaped("it sees %d", len(pids))
			}
			return contained("it sees none")
		},
	},
	{
		"find-processes", "processes", "asks for every number whether it is a process (kill with signal 0)",
		ownProcesses, func(s *Site) Finding { return s.blind() },
	},
	{
		"secrets-of-processes", "processes", "reads environment, memory and descriptors of other processes",
		ownProcesses + "; who may trace whom", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				return secretsOf(pid)
			})
		},
	},
	{
		"signal", "processes", "sends signals to other processes (kill, with signal 0)",
		ownProcesses + "; other uids; Landlock", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding { return gone(unix.Kill(pid, 0)) })
		},
	},
	{
		"signal-by-pidfd", "processes", "sends signals to other processes (pidfd_send_signal)",
		ownProcesses + "; other uids; Landlock", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				return byPidfd(pid, func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) })
			})
		},
	},
	{
		"steal-descriptor", "processes", "takes descriptors of other processes (pidfd_getfd)",
		ownProcesses + "; who may trace whom", func(s *Site) Finding {
			return s.eachOther(stealsDescriptor)
		},
	},
	{
		"trace", "processes", "traces other processes (ptrace)",
		ownProcesses + "; who may trace whom", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				return traces(pid)
			})
		},
	},
	{
		"read-memory", "processes", "reads and writes memory of other processes (process_vm_readv)",
		ownProcesses + "; who may trace whom", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				return readsMemory(pid)
			})
		},
	},
	{
		"take-over-reaper", "processes", "traces its own pid 1, the emperor's program, and reads its memory and descriptors",
		"who may trace whom; Landlock", (*Site).reaper,
	},
	{
		"compare", "processes", "compares what other processes have open with its own (kcmp)",
		ownProcesses + "; who may trace whom", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				err := sys(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 1) // KCMP_VM
				return gone(err)
			})
		},
	},
	{
		"slow-others", "processes", "changes priorities, processors and limits of other processes",
		ownProcesses + "; other uids", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding {
				nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
				if err == nil {
					err = unix.Setpriority(unix.PRIO_PROCESS, pid, 20-nice) // as it is
				}
				if f := gone(err); f.Outcome != Contained {
					return f
				}
				var limit unix.Rlimit
				return gone(unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit))
			})
		},
	},
	{
		"oom-victims", "processes", "has other processes killed in its place when memory is short (oom_score_adj)",
		ownProcesses + "; other uids", func(s *Site) Finding {
			return s.eachOther(func(pid int) Finding { return opens(procPath(pid, "oom_score_adj"), unix.O_WRONLY) })
		},
	},
}

func traces(pid int) Finding {
	runtime.LockOSThread() // who traces is a thread
	defer runtime.UnlockOSThread()
	err := sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0)
	if err == nil {
		_ = unix.PtraceInterrupt(pid)
		_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		_ = unix.PtraceDetach(pid)
	}
	return gone(err)
}

func readsMemory(pid int) Finding {
	b := make([]byte, 1)
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x1000, Len: 1}}, 0)
	return gone(err, unix.EFAULT)
}

// reaper tries to get hold of pid 1, and of those above this program: they are the
// emperor's program, and none of what holds the app holds them.
func (s *Site) reaper() Finding {
	pids := []int{1}
	for _, pid := range ancestors(s.top) {
		if statusOf(itoa(pid))["Seccomp"] != statusOf("self")["Seccomp"] { // else it is the app's own
			pids = append(pids, pid)
		}
	}
	return anyOf(pids, func(pid int) Finding {
		for _, try := range []func(int) Finding{secretsOf, traces, readsMemory} {
			if f := try(pid); f.Outcome != Contained {
				return f
			}
		}
		return contained("%v", unix.EPERM)
	})
}

// gone is judge where not to find a process is to be contained.
func gone(err error, past ...error) Finding {
	if errors.Is(err, unix.ESRCH) {
		return contained("%v", err)
	}
	return judge(err, past...)
}

// secretsOf reads what only those may read who may trace a process.
func secretsOf(pid int) Finding {
	if f := opens(procPath(pid, "mem"), unix.O_RDWR); f.Outcome != Contained {
		return f
	}
	for _, file := range []string{"environ", "maps", "syscall", "stack"} {
		if f := hasContent(procPath(pid, file)); f.Outcome != Contained {
			return f
		}
	}
	for _, link := range []string{"fd/0", "root", "cwd", "ns/net"} {
		if _, err := os.Readlink(procPath(pid, link)); err == nil {
			return escaped("it reads %s", link)
		}
	}
	return contained("%v", unix.EACCES)
}

// eachOther tries something on the processes that are seen and not ours, and
// blindly on the first numbers, where the host's are.
func (s *Site) eachOther(try func(pid int) Finding) Finding {
	pids := s.foreign()
	for pid := 1; pid < 40; pid++ {
		if !s.ours(pid) {
			pids = append(pids, pid)
		}
	}
	return anyOf(pids, func(pid int) Finding {
		f := try(pid)
		if f.Outcome == Unclear && statusOf(strconv.Itoa(pid)) == nil {
			return contained("it is not there")
		}
		return f
	})
}

func stealsDescriptor(pid int) Finding {
	return byPidfd(pid, func(fd int) error {
		got, err := unix.PidfdGetfd(fd, 0, 0)
		if err == nil {
			_ = unix.Close(got)
		}
		if errors.Is(err, unix.EBADF) {
			err = nil // it may look, and there is no descriptor 0
		}
		return err
	})
}

func byPidfd(pid int, try func(fd int) error) Finding {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return contained("%v", err) // a thread
		}
		return gone(err)
	}
	defer unix.Close(fd)
	return gone(try(fd))
}

// blind looks for processes behind a /proc that hides them.
func (s *Site) blind() Finding {
	const most = 1 << 16
	var found []string
	for pid := 1; pid < most; pid++ {
		if err := unix.Kill(pid, 0); err == nil || errors.Is(err, unix.EPERM) {
			if !s.ours(pid) {
				found = append(found, itoa(pid))
			}
		}
	}
	if len(found) > 0 {
		return escaped("%s", few(found))
	}
	return contained("%v", unix.ESRCH)
}

func itoa(n int) string { return strconv.Itoa(n) }
