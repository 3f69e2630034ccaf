package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/tuntap"
	"fiefdom/vassal"
)

// machineChecks are the questions that every emperor has. What they make, they
// make in namespaces of their own.
func machineChecks() []check {
	return []check{
		{"user", checkUser},
		{"caps", checkCapabilities},
		{"kernel", checkKernel},
		{"namespaces", checkNamespaces},
		{"sysctls", checkSysctls},
		{"tun", checkTun},
		{"cgroup", checkCgroup},
		{"limits", checkLimits},
		{"pidfd", checkPidfd},
		{"confine", checkConfinement},
		{"iptables", func() finding { return checkIPTables("iptables", levelFail) }},
		{"ip6tables", func() finding { return checkIPTables("ip6tables", levelWarn) }},
		{"forwarding", checkForwarding},
		{"published", checkPublished},
		{"resolvers", checkResolvers},
		{"names", checkNames},
		{"selinux", checkSELinux},
		{"uwsgi", checkUwsgi},
	}
}

func checkUser() finding {
	if uid := os.Geteuid(); uid != 0 {
		return fail("run it as root (sudo)", "uid %d; an emperor makes namespaces, devices and firewall rules", uid)
	}
	return fine("root")
}

func checkSysctls() finding {
	if err := vassal.SettingsRefused(); err != nil {
		return fail(mountSettings, "%v", err)
	}
	return fine("can be written")
}

// checkSELinux says that a policy is in force which has no rules for us: what it
// denies looks like want of rights.
func checkSELinux() finding {
	b, err := os.ReadFile("/sys/fs/selinux/enforce")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		return fine("not in force")
	}
	return warn("where something is denied without a reason, look at: ausearch -m avc -ts recent; to know for sure: setenforce 0, try again, setenforce 1",
		"in force, and its policy has no rules for an emperor")
}

// neededCaps are the capabilities that an emperor does not work without. Root in a
// container has but some.
var neededCaps = []struct {
	number int
	name   string
}{
	{unix.CAP_CHOWN, "CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"},
	{unix.CAP_FOWNER, "FOWNER"},
	{unix.CAP_KILL, "KILL"},
	{unix.CAP_SETGID, "SETGID"},
	{unix.CAP_SETUID, "SETUID"},
	{unix.CAP_SETPCAP, "SETPCAP"},
	{unix.CAP_SYS_CHROOT, "SYS_CHROOT"},
	{unix.CAP_NET_ADMIN, "NET_ADMIN"},
	{unix.CAP_NET_RAW, "NET_RAW"},
	{unix.CAP_NET_BIND_SERVICE, "NET_BIND_SERVICE"},
	{unix.CAP_SYS_ADMIN, "SYS_ADMIN"},
	{unix.CAP_SYS_PTRACE, "SYS_PTRACE"},
}

func checkCapabilities() finding {
	if os.Geteuid() != 0 {
		return fine("not asked: the user is not root")
	}
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return warn("", "capget: %v", err)
	}
	var lacks []string
	for _, c := range neededCaps {
		if data[c.number/32].Effective&(1<<(c.number%32)) == 0 {
			lacks = append(lacks, c.name)
		}
	}
	if len(lacks) > 0 {
		return fail("give the container --cap-add "+strings.Join(lacks, " --cap-add ")+", or run on the host", "root without CAP_%s", strings.Join(lacks, ", CAP_"))
	}
	return fine("all that are needed")
}

// needed is the Linux version that has all that an emperor uses at every start;
// cgroup.kill came last.
const needed = "5.14"

func checkKernel() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail("", "uname: %v", err)
	}
	return judgeKernel(unix.ByteSliceToString(u.Release[:]))
}

func judgeKernel(release string) finding {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn("check by hand that it is "+needed+" or newer", "Linux %s, a version that cannot be read", release)
	}
	if major < 5 || major == 5 && minor < 14 {
		return warn("install Linux "+needed+" or newer", "Linux %s is older than %s, the first with cgroup.kill", release, needed)
	}
	return fine("Linux %s", release)
}

func checkNamespaces() finding {
	ns, err := netns.New()
	if err != nil {
		fix := "run it as root"
		switch {
		case errors.Is(err, unix.ENOSPC):
			fix = "sysctl -w user.max_net_namespaces=10000 (the limit is reached)"
		case errors.Is(err, unix.EINVAL):
			fix = "use a kernel with CONFIG_NET_NS"
		case os.Geteuid() == 0:
			fix = "give the container CAP_SYS_ADMIN, or run on the host"
		}
		return fail(fix, "%v", err)
	}
	defer ns.Close()
	const ofUsers = "user.max_user_namespaces"
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(ofUsers, ".", "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return warn("use a kernel with CONFIG_USER_NS, or leave userns = auto out", "network namespaces can be made, user namespaces cannot: userns = auto is refused here")
	case err == nil && strings.TrimSpace(string(b)) == "0":
		return warn("sysctl -w "+ofUsers+"=10000, or leave userns = auto out", "network namespaces can be made, user namespaces cannot (%s is 0): userns = auto is refused here", ofUsers)
	}
	return fine("network namespaces can be made")
}

// checkTun opens a device where it disturbs nobody.
func checkTun() finding {
	open := func() error {
		dev, err := tuntap.OpenDevice("doctor0")
		if err != nil {
			return err
		}
		return dev.Close()
	}
	err := inFreshNetwork(open)
	if err == nil {
		return fine("/dev/net/tun opens and makes devices")
	}
	fix := "look what it is: ls -l /dev/net/tun (want a character device 10, 200)"
	switch {
	case errors.Is(err, unix.ENOENT):
		fix = "modprobe tun; or, in a container: --device /dev/net/tun\n" +
			"(by hand: mkdir -p /dev/net; mknod /dev/net/tun c 10 200)"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		fix = "modprobe tun; the kernel has no such driver loaded"
	case os.Geteuid() != 0:
		fix = "run it as root"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		fix = "give the container the device and the right to use it:\n--device /dev/net/tun --cap-add NET_ADMIN"
	}
	return fail(fix, "%v", err)
}

// inFreshNetwork runs f in a network namespace that ends with it.
func inFreshNetwork(f func() error) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Do(ns, f)
}

func checkCgroup() finding {
	const without = "vassals' children are then found by their namespaces"
	own, err := vassal.OwnCgroup()
	if err != nil {
		return warn("mount -t cgroup2 none /sys/fs/cgroup", "%v; %s", err, without)
	}
	c, err := own.Make(fmt.Sprintf("fiefdom-doctor-%d", os.Getpid()))
	if err != nil {
		fix := "mount the v2 tree writable (in a container: --cgroupns private and a writable /sys/fs/cgroup)"
		if os.Geteuid() != 0 {
			fix = "run it as root"
		}
		return warn(fix, "%v; %s", err, without)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.Remove(ctx); err != nil {
		return warn("rmdir "+string(c), "%v", err)
	}
	return fine("v2 tree at %s, with cgroup.kill", own)
}

func checkPidfd() finding {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fail("install Linux "+needed+" or newer; allow pidfd_open in the container's seccomp profile", "pidfd_open: %v", err)
	}
	unix.Close(fd)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("", "socketpair: %v", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	peer, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return warn("install Linux 6.5 or newer if vassals connect by themselves, as uWSGI's do",
			"no SO_PEERPIDFD (%v): who connects to a router's socket counts as foreign", err)
	}
	unix.Close(peer)
	return fine("processes are known by descriptor, also behind a socket")
}
