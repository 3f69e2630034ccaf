package hostile

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var rightsRows = []Row{
	{
		"capabilities", "rights", "looks for capabilities in any of its sets: inheritable, permitted, effective, bounding, ambient",
		"all are emptied before exec", func(*Site) Finding {
			status := statusOf("self")
			if status == nil {
				return unclear("it cannot read its own status")
			}
			var has []string
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
				if strings.Trim(status[set], "0") != "" {
					has = append(has, set+" "+status[set])
				}
			}
			if len(has) > 0 {
				return escaped("%s", few(has))
			}
			return contained("all are empty")
		},
	},
	{
		"new-privileges", "rights", "looks whether exec could give it more, and whether its system calls are filtered",
		"no_new_privs; seccomp", func(*Site) Finding {
			status := statusOf("self")
			if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
				return escaped("NoNewPrivs is %s, Seccomp is %s", status["NoNewPrivs"], status["Seccomp"])
			}
			return contained("NoNewPrivs is 1, Seccomp is 2")
		},
	},
	{
		"raise-capabilities", "rights", "takes capabilities (capset)",
		"no capability", func(*Site) Finding {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_RAW, Permitted: 1 << unix.CAP_NET_RAW}}
			return judge(unix.Capset(&header, &data[0]))
		},
	},
	{
		"change-user", "rights", "becomes another user: root, or from root somebody (setresuid)",
		"no capability", func(*Site) Finding {
			uid := 0
			if os.Getuid() == 0 {
				uid = nobody
			}
			err := sys(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
			return judge(err)
		},
	},
	{
		"change-groups", "rights", "joins groups: disk, shadow, docker (setgroups, setresgid)",
		"no capability; seccomp", func(*Site) Finding {
			if err := syscall.Setgroups([]int{6, 42}); err == nil {
				return escaped("it has joined disk and shadow")
			}
			err := sys(unix.SYS_SETRESGID, 42, 42, 42)
			return judge(err)
		},
	},
	{
		"groups-of-root", "rights", "looks for groups that it still has of who started it",
		"groups are set before exec", func(*Site) Finding {
			groups, err := os.Getgroups()
			if err != nil {
				return unclear("%v", err)
			}
			gid := os.Getgid()
			const disk, shadow = 6, 42
			if gid == 0 && os.Getuid() != 0 || gid != 0 && slices.Contains(groups, 0) || slices.Contains(groups, disk) || slices.Contains(groups, shadow) {
				return escaped("gid %d, groups %v", gid, groups)
			}
			return contained("gid %d, groups %v", gid, groups)
		},
	},
	{
		"environment", "rights", "looks into its environment for what is the emperor's: keys, tokens, sockets of its session",
		"a closed list of variables", func(*Site) Finding {
			var has []string
			for _, v := range os.Environ() {
				name, _, _ := strings.Cut(v, "=")
				for _, sign := range []string{"SECRET", "TOKEN", "PASSWORD", "KEY", "SSH_", "SUDO_", "DBUS_", "XDG_", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_", "CREDENTIALS"} {
					if strings.Contains(name, sign) {
						has = append(has, name)
						break
					}
				}
			}
			if len(has) > 0 {
				return escaped("%s", few(has))
			}
			return contained("%d variables, none of such a name", len(os.Environ()))
		},
	},
	{
		"own-limits", "rights", "raises its limits: open files, core dumps, locked memory (setrlimit)",
		"hard limits; no capability", func(*Site) Finding {
			for _, which := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK} {
				var now unix.Rlimit
				if err := unix.Prlimit(0, which, nil, &now); err != nil {
					return unclear("%v", err)
				}
				if now.Max == unix.RLIM_INFINITY {
					return escaped("limit %d has no bound", which)
				}
				if f := judge(unix.Prlimit(0, which, &unix.Rlimit{Cur: now.Cur, Max: now.Max + 1}, nil)); f.Outcome != Contained {
					return f
				}
			}
			return contained("%v", unix.EPERM)
		},
	},
	{
		"own-priority", "rights", "goes before all others: nice -20, real time, input and output, safety from the OOM killer",
		"no capability", func(*Site) Finding { return first() },
	},
}

// first asks for what would be this program's before others', each as the kernel
// asks for a right.
func first() Finding {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err == nil {
		return escaped("nice -20")
	}
	one := int32(1)
	err := sys(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, uintptr(unsafe.Pointer(&one)))
	if f := judge(err); f.Outcome != Contained {
		return f
	}
	const realTimeIO = 1 << 13
	if err := sys(unix.SYS_IOPRIO_SET, 1, 0, realTimeIO); err == nil {
		return escaped("real time for its input and output")
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err == nil {
		return escaped("the OOM killer spares it")
	} else if !refused(err) && !errors.Is(err, os.ErrNotExist) {
		return unclear("%v", err)
	}
	return contained("%v", unix.EPERM)
}
