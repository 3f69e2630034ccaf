package hostile

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const noMounts = "no capability; seccomp"

var mountRows = []Row{
	{
		"mount", "mounts", "mounts a tmpfs (mount)",
		noMounts, func(*Site) Finding {
			return inside(func(dir string) Finding {
				err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k")
				if err == nil {
					_ = unix.Unmount(dir, unix.MNT_DETACH)
				}
				return judge(err)
			})
		},
	},
	{
		"mount-proc", "mounts", "mounts a /proc without masks",
		noMounts, func(*Site) Finding {
			return inside(func(dir string) Finding {
				err := unix.Mount("proc", dir, "proc", 0, "")
				if err == nil {
					_ = unix.Unmount(dir, unix.MNT_DETACH)
				}
				return judge(err)
			})
		},
	},
	{
		"remount", "mounts", "makes its root writable (mount, MS_REMOUNT)",
		noMounts, func(*Site) Finding {
			return judge(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""), unix.EINVAL)
		},
	},
	{
		"mount-setattr", "mounts", "makes its root writable (mount_setattr)",
		noMounts, func(*Site) Finding {
			return judge(unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}), unix.EINVAL)
		},
	},
	{
		"unmount", "mounts", "takes a mask away (umount2)",
		noMounts, func(*Site) Finding {
			// /dev/null is no mount, or one that is not taken away.
			return judge(unix.Unmount("/proc/self/status", unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW), unix.EINVAL)
		},
	},
	{
		"open-tree", "mounts", "copies the mounts at / to look below what covers them (open_tree)",
		noMounts, func(*Site) Finding {
			fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err == nil {
				_ = unix.Close(fd)
			}
			return judge(err, unix.EINVAL)
		},
	},
	{
		"fsopen", "mounts", "makes a file system by the new calls (fsopen)",
		noMounts, func(*Site) Finding {
			fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
			if err == nil {
				_ = unix.Close(fd)
			}
			return judge(err)
		},
	},
	{
		"move-mount", "mounts", "moves a mount (move_mount)",
		noMounts, func(*Site) Finding {
			return judge(unix.MoveMount(unix.AT_FDCWD, nowhere, unix.AT_FDCWD, nowhere, 0), unix.ENOENT)
		},
	},
	{
		"new-mount-namespace", "mounts", "leaves its mounts for a namespace of its own (unshare)",
		noMounts, func(*Site) Finding {
			err := sys(unix.SYS_UNSHARE, unix.CLONE_NEWNS)
			return judge(err)
		},
	},
	{
		"fanotify", "mounts", "watches, and holds up, what everybody does with the files of a mount (fanotify)",
		"no capability; seccomp", func(*Site) Finding {
			fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
			if err == nil {
				_ = unix.Close(fd)
			}
			return judge(err)
		},
	},
	{
		"quota", "mounts", "sets quotas of a file system (quotactl)",
		"seccomp", func(*Site) Finding {
			path := []byte(nowhere + "\x00")
			const quotaOn = 0x800002
			err := sys(unix.SYS_QUOTACTL, quotaOn<<8, uintptr(unsafe.Pointer(&path[0])), 0, 0)
			return judge(err, unix.ENOENT, unix.EINVAL, unix.ENOTBLK)
		},
	},
}
