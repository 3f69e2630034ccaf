package hostile

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const fewDevices = "a /dev of its own with the usual few; Landlock"

var deviceRows = []Row{
	{
		"memory", "devices", "opens the machine's memory and ports: /dev/mem, /dev/kmem, /dev/port, /dev/cpu/0/msr",
		fewDevices, func(*Site) Finding {
			return anyOf([]string{"/dev/mem", "/dev/kmem", "/dev/port", "/dev/cpu/0/msr", "/dev/nvram"}, func(path string) Finding { return opens(path, unix.O_RDONLY) })
		},
	},
	{
		"disks", "devices", "reads a disk of the host's, by its node in /dev",
		fewDevices, func(*Site) Finding {
			return anyOf(existing("/dev/[svx]d[a-z]", "/dev/xvd[a-z]", "/dev/nvme*", "/dev/mmcblk[0-9]", "/dev/dm-*", "/dev/loop[0-9]", "/dev/md*"),
				func(path string) Finding { return opens(path, unix.O_RDONLY) })
		},
	},
	{
		"doors-of-drivers", "devices", "opens the doors of drivers: tun, fuse, kvm, loop-control, device mapper, vhost, uinput, userfaultfd, autofs, btrfs",
		fewDevices, func(*Site) Finding {
			return anyOf([]string{
				"/dev/net/tun", "/dev/fuse", "/dev/kvm", "/dev/loop-control", "/dev/mapper/control", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/uinput",
				"/dev/userfaultfd", "/dev/autofs", "/dev/btrfs-control", "/dev/ppp", "/dev/uhid", "/dev/rfkill", "/dev/vfio/vfio", "/dev/cuse", "/dev/udmabuf", "/dev/vga_arbiter", "/dev/hwrng",
			}, func(path string) Finding { return opens(path, unix.O_RDONLY) })
		},
	},
	{
		"consoles", "devices", "opens the machine's terminals: /dev/console, /dev/tty0, /dev/tty1",
		fewDevices, func(*Site) Finding {
			return anyOf([]string{"/dev/console", "/dev/tty0", "/dev/tty1", "/dev/vcs"}, func(path string) Finding { return opens(path, unix.O_WRONLY) })
		},
	},
	{
		"terminals-of-others", "devices", "opens the terminals of whoever is logged in on the host (/dev/pts)",
		"a /dev/pts of its own", func(*Site) Finding {
			entries := numbers("/dev/pts")
			return anyOf(entries, func(n int) Finding { return opens(filepath.Join("/dev/pts", itoa(n)), unix.O_RDWR) })
		},
	},
	{
		"kernel-log", "devices", "reads or writes the kernel's log: /dev/kmsg, /proc/kmsg, syslog(2)",
		fewDevices + "; seccomp", func(*Site) Finding {
			for path, flags := range map[string]int{"/dev/kmsg": unix.O_WRONLY, "/proc/kmsg": unix.O_RDONLY} {
				if f := opens(path, flags); f.Outcome != Contained {
					return f
				}
			}
			if f := hasContent("/dev/kmsg"); f.Outcome != Contained {
				return f
			}
			_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64))
			return judge(err)
		},
	},
	{
		"make-device", "devices", "makes the node of a device, of the disk that it lies on and of /dev/kmsg, and opens it",
		"no capability; mounts that are nodev", func(*Site) Finding { return inside(makesDevice) },
	},
	{
		"type-into-terminal", "devices", "types into its terminal, for the shell that reads there when it is gone (TIOCSTI, TIOCLINUX)",
		"seccomp; no terminal", func(*Site) Finding { return types() },
	},
}

func makesDevice(dir string) Finding {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return unclear("%v", err)
	}
	for name, node := range map[string]struct {
		mode uint32
		dev  int
	}{
		"disk": {unix.S_IFBLK | 0o600, int(st.Dev)},
		"kmsg": {unix.S_IFCHR | 0o600, int(unix.Mkdev(1, 11))},
	} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, node.mode, node.dev); err != nil {
			if f := judge(err); f.Outcome != Contained {
				return f
			}
			continue
		}
		err := canOpen(path, unix.O_RDONLY)
		_ = os.Remove(path)
		if err == nil || !refused(err) && name == "kmsg" {
			return escaped("it makes %s, and opening it says: %v", name, err)
		}
	}
	return contained("%v", unix.EPERM)
}

// types puts a byte into the input of a new terminal of its own, as it could into
// that of who started it.
func types() Finding {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return contained("it has no terminal: %v", err)
	}
	defer unix.Close(master)
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0))
	if err != nil {
		return unclear("a terminal of its own: %v", err)
	}
	tty, err := unix.Open(filepath.Join("/dev/pts", itoa(int(n))), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return unclear("a terminal of its own: %v", err)
	}
	defer unix.Close(tty)
	signal.Ignore(unix.SIGHUP) // which its end sends
	// It must be the one that controls its session, or TIOCSTI is refused for that.
	_, _ = unix.Setsid()
	if err := sys(unix.SYS_IOCTL, uintptr(tty), unix.TIOCSCTTY, 0); err != nil {
		return unclear("a terminal that controls: %v", err)
	}
	err = unix.IoctlSetPointerInt(tty, unix.TIOCSTI, 'x')
	if f := judge(err); f.Outcome != Contained && !errors.Is(err, unix.EIO) { // dev.tty.legacy_tiocsti is off
		return f
	}
	const setSelection = 2
	return judge(unix.IoctlSetPointerInt(tty, tiocLinux, setSelection), unix.ENOTTY, unix.EINVAL)
}

const tiocLinux = 0x541C
