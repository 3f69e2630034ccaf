package exposure

import (
	"fmt"
	"strings"
)

// row is a line of the table: ok judges, good and bad say what is so, advice what
// would turn it.
type row struct {
	name   string
	weight int    // against that of all
	why    string // it counts, for people who read the table
	ok     func(*Facts) bool
	good   string
	bad    func(*Facts) string
	advice func(*Facts) Advice
}

func text(s string) func(*Facts) string { return func(*Facts) string { return s } }

// rows are all that is judged. A weight is how far the row alone keeps an app that
// was taken over from others: ten for what is a way to root or to everybody's
// data, five for what takes a second hole, one or two for what only helps.
var rows = []row{
	{
		"user", 10, "root's files are open to root, whatever else is taken away",
		func(f *Facts) bool { return !f.Rights.Root }, "the app is not root", text("the app is root, or of root's group"), adviseUser,
	},
	{
		"capabilities", 8, "each capability is a part of root's power over the machine",
		func(f *Facts) bool { return len(f.Rights.Capabilities) == 0 }, "no capabilities",
		func(f *Facts) string { return "it has capabilities: " + some(f.Rights.Capabilities) },
		func(f *Facts) Advice {
			a := f.confined()
			if f.Ini.Cap {
				a.Remove = append(a.Remove, "cap")
			}
			return a
		},
	},
	{
		"new-rights", 7, "one hole in one of the host's setuid programs is enough to become root",
		func(f *Facts) bool { return f.Rights.NoNewPrivs }, "no program gives it more rights (no_new_privs)", text("programs may give it more rights, as sudo does"), confine,
	},
	{
		"setuid", 2, "nosuid holds for its programs even where no_new_privs is forgotten",
		func(f *Facts) bool { return len(f.Files.Setuid) == 0 }, "nothing that it sees is setuid",
		func(f *Facts) string { return "setuid programs count on " + some(f.Files.Setuid) },
		func(f *Facts) Advice { return f.hooked("what they mount has no nosuid") },
	},
	{
		"own-user", 3, "vassals of one uid may send each other signals, and have the same files",
		func(f *Facts) bool { return f.Rights.Sharing == 0 }, "no other vassal has its uid",
		func(f *Facts) string {
			return fmt.Sprintf("%d other vassals have its uid, %d", f.Rights.Sharing, f.Rights.UID)
		}, adviseOwnUser,
	},
	{
		"calls", 9, "each system call is a piece of the kernel to attack",
		func(f *Facts) bool { return f.Rights.Filtered }, "system calls are filtered", text("every system call is open"), confine,
	},
	{
		"strict-calls", 2, "sockets of rare kinds, debuggers and new namespaces have had most of the kernel's holes",
		func(f *Facts) bool { return f.Rights.Strict }, "no rare sockets, debuggers, namespaces", text("rare sockets, debuggers, namespaces are open"), adviseStrict,
	},
	{
		"system", 7, "who may write where the host's programs and settings are needs only to wait",
		func(f *Facts) bool { return len(f.Files.Open) == 0 }, "the system is read-only to it",
		func(f *Facts) string { return "it may write, as far as modes go, on " + some(f.Files.Open) },
		func(f *Facts) Advice { return f.hooked("what they mount can be written") },
	},
	{
		"landlock", 6, "beside what it needs an app finds nothing: no customers' folders, no forgotten backups",
		func(f *Facts) bool { return f.Files.Landlock > 0 }, "it reads and writes what its ini names, and the system", text("it reads whatever modes let it read"),
		func(f *Facts) Advice {
			a := f.confined()
			if f.Files.Knows == 0 {
				a.Note = "this kernel has no Landlock: Linux 5.13, started with lsm=landlock,…"
			}
			return a
		},
	},
	{
		"executable", 2, "what was brought in cannot be started",
		func(f *Facts) bool { return len(f.Files.Executable) == 0 }, "what it may write is not executed",
		func(f *Facts) string { return "it may write and execute on " + some(f.Files.Executable) }, adviseStrict,
	},
	{
		"given", 4, "a socket of Docker's or a folder of the system's undoes all the rest",
		func(f *Facts) bool { return len(f.Files.Given) == 0 }, "its ini gives away nothing of the host's own",
		func(f *Facts) string { return "its ini gives away what is the host's: " + some(f.Files.Given) },
		func(f *Facts) Advice { return Advice{Remove: f.Files.Given} },
	},
	{
		"own-code", 4, "an app that can change its own code is still somebody else's after a restart",
		func(f *Facts) bool { return len(f.Files.Changes) == 0 }, "it cannot change its own code or ini",
		func(f *Facts) string { return "it may change what it is made of: " + some(f.Files.Changes) }, adviseCode,
	},
	{
		"tmp", 2, "in a shared /tmp files are left for others to fall over",
		func(f *Facts) bool { return !f.Sight.Tmp }, "/tmp is its own", text("/tmp is the host's"), confine,
	},
	{
		"run", 3, "in the host's /run are the sockets of all its services",
		func(f *Facts) bool { return !f.Sight.Run }, "/run is its own", text("it sees the host's /run, with all sockets"), confine,
	},
	{
		"devices", 3, "each node is a driver of the kernel's to attack",
		func(f *Facts) bool { return !f.Sight.Dev }, "/dev has the usual few", text("it sees all of the host's devices"), confine,
	},
	{
		"kernel-files", 3, "/proc and /sys tell of the machine, and some of their files change it",
		func(f *Facts) bool { return !f.Sight.Kernel }, "/proc and /sys have nothing of the machine's to change", text("/proc and /sys are the host's"),
		func(f *Facts) Advice { return f.hooked("they may have mounted them") },
	},
	{
		"processes", 4, "whom it does not see it cannot signal, trace or read about",
		shared("pid"), "it sees its own processes alone", text("it sees the host's processes"), confine,
	},
	{
		"mounts", 2, "what the host mounts later, a stick or a backup, does not appear in it",
		shared("mnt"), "its mounts are its own", text("its mounts are the host's"), confine,
	},
	{
		"ipc", 2, "shared memory of databases can be opened by whoever has their uid",
		shared("ipc"), "its shared memory is its own", text("it sees the host's shared memory"), confine,
	},
	{
		"hostname", 1, "the host's name is told to nobody",
		shared("uts"), "its hostname is its own", text("its hostname is the host's"), confine,
	},
	{
		"cgroups", 1, "it does not learn what else runs",
		shared("cgroup"), "it sees no cgroups above its own", text("it sees the names of the host's cgroups"), confine,
	},
	{
		"network", 8, "on the host's network it is a program of the host's: loopback, private services, abstract sockets",
		shared("net"), "its network is its own", text("its network is the host's"), adviseNetwork,
	},
	{
		"isolate", 5, "one app that was taken over is not to reach the next, nor the LAN, nor a cloud's metadata",
		func(f *Facts) bool { return len(f.Network.Neighbors) == 0 && shared("net")(f) }, "other vassals, the host and private networks are closed to it",
		func(f *Facts) string {
			return strings.TrimSpace("it may reach other vassals, the host and private networks " + by(f.Network.Neighbors))
		}, adviseIsolate,
	},
	{
		"outside", 2, "what it read cannot be sent away, and nobody is attacked from here",
		func(f *Facts) bool { return len(f.Network.Anywhere) == 0 && shared("net")(f) }, "it may reach only what rules allow",
		func(f *Facts) string {
			return strings.TrimSpace("it may reach the whole internet " + by(f.Network.Anywhere))
		}, adviseOutside,
	},
	{
		"ports", 2, "no second server appears beside the one that is meant",
		func(f *Facts) bool { return f.Network.Counted }, "it listens on certain ports alone", text("it may listen on any port"), advisePorts,
	},
	{
		"published", 2, "behind a reverse proxy there is one place that has to be right",
		func(f *Facts) bool { return len(f.Network.Low) == 0 }, "no low port of the host's is everybody's way to it",
		func(f *Facts) string {
			return fmt.Sprintf("%d low ports of the host's lead everybody to it", len(f.Network.Low))
		}, advisePublished,
	},
	{
		"memory", 3, "without a limit one app takes the machine's",
		func(f *Facts) bool { return f.Limits.Memory }, "its memory is limited", text("it may take all memory"),
		adviseMemory,
	},
	{
		"processes-limit", 3, "a fork bomb is the oldest of all",
		func(f *Facts) bool { return f.Limits.PIDs }, "its processes are limited", text("it may start processes without end"),
		advisePIDs,
	},
	{
		"cpu", 2, "without a limit one app slows all others down",
		func(f *Facts) bool { return f.Limits.CPU }, "its processor time is limited", text("it may take all processors"),
		func(*Facts) Advice { return Advice{Write: []string{"limit-cpu = 1"}} },
	},
	{
		"hooks", 3, "what runs as root at each start runs where the app could leave something for it",
		func(f *Facts) bool { return len(f.Ini.Hooks) == 0 }, "nothing of its ini runs as root",
		func(f *Facts) string { return "its ini runs as root: " + some(f.Ini.Hooks) },
		func(f *Facts) Advice { return Advice{Remove: f.Ini.Hooks} },
	},
	{
		"secrets", 3, "a password in a file that everybody reads is everybody's",
		func(f *Facts) bool { return len(f.Ini.Secrets) == 0 || !f.Ini.Readable }, "no secret stands where everybody can read it",
		func(f *Facts) string { return "everybody can read its ini, with " + some(f.Ini.Secrets) },
		func(f *Facts) Advice { return Advice{Run: []string{"chmod o-r " + quoted(f.File)}} },
	},
}

func by(networks []string) string {
	if len(networks) == 0 {
		return ""
	}
	return "by " + some(networks)
}
