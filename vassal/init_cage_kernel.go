package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// secrets are folders and files that no app has to see. A file that the host
// replaces by another is seen again; what it holds is for root to read anyway.
// Some hold sockets that let everybody in: Landlock says nothing of connecting.
var secrets = []string{
	"/root", "/boot", "/lost+found",
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/security/opasswd", "/etc/krb5.keytab",
	"/etc/ssh", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/fiefdom", "/etc/docker", "/etc/wireguard", "/etc/kubernetes", "/etc/ipsec.d/private", "/etc/ipsec.secrets",
	"/etc/letsencrypt/live", "/etc/letsencrypt/archive", "/etc/letsencrypt/accounts", "/etc/letsencrypt/keys",
	"/run/fiefdom", "/var/lib/fiefdom", "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/systemd", "/var/log",
	"/var/lib/containers", "/var/lib/incus", "/var/lib/lxd", "/var/lib/mysql", "/var/snap",
	"/var/spool/cron", "/var/backups",
}

// rootsAlone are the files and folders below one that only their owners and groups
// may read. An app of uid 0 owns most of them, so that permissions keep it from none.
func rootsAlone(dir string) (all []string, err error) {
	const read, list = 0o004, 0o005
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !d.IsDir() && !d.Type().IsRegular() || path == dir {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && info.Mode().Perm()&list != list {
			all = append(all, path)
			return fs.SkipDir
		}
		if !d.IsDir() && info.Mode().Perm()&read == 0 {
			all = append(all, path)
		}
		return nil
	})
	return all, err
}

// What the kernel shows in /proc and /sys and no app needs, as container engines
// have it.
var (
	maskedProc = []string{
		"/proc/acpi", "/proc/asound", "/proc/dynamic_debug", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kallsyms", "/proc/kmsg", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/vmallocinfo", "/proc/slabinfo", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
		"/proc/iomem", "/proc/ioports", "/proc/modules", "/proc/page_owner",
	}
	readOnlyProc = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/mtrr", "/proc/sys", "/proc/sysrq-trigger"}
	maskedSys    = []string{"/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/kernel/config", "/sys/kernel/notes", "/sys/kernel/vmcoreinfo"}
)

// newProc is a /proc of the vassal's processes alone.
func (c *cage) newProc() error {
	if _, err := os.Lstat("/proc"); errors.Is(err, fs.ErrNotExist) {
		return nil // a root without
	}
	fd, err := newMount("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	proc := c.own(fd, "proc")
	if err := put(proc, "/proc"); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := same(proc, "/proc"); err != nil {
		return err
	}
	for _, path := range readOnlyProc {
		tree, _, err := c.open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = narrow(tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		}
		if err == nil {
			err = errors.Join(put(tree, path), same(tree, path))
		}
		if err != nil {
			return fmt.Errorf("read-only %s: %w", path, err)
		}
	}
	return c.maskAll(maskedProc)
}

// newSys is what the kernel shows of the vassal's network namespace, and of its
// own cgroup.
func (c *cage) newSys() error {
	if _, err := os.Lstat("/sys"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := newMount("sysfs", attributes)
	if errors.Is(err, unix.EPERM) {
		return c.maskAll([]string{"/sys"}) // a user namespace that the network is not of
	}
	if err != nil {
		return err
	}
	sys := c.own(fd, "sysfs")
	if err := errors.Join(put(sys, "/sys"), same(sys, "/sys")); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	const tree = "/sys/fs/cgroup"
	if fd, err := newMount("cgroup2", attributes); err == nil { // else the folder is empty
		if err := put(c.own(fd, "cgroup2"), tree); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount %s: %w", tree, err)
		}
	}
	return c.maskAll(maskedSys)
}

// maskAll puts nothing where something is.
func (c *cage) maskAll(paths []string) error {
	for _, path := range paths {
		at, err := openPlain(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
		var st unix.Stat_t
		err = errors.Join(unix.Fstat(int(at.Fd()), &st), at.Close())
		if err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
		name := nothingFile
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			name = nothingFolder
		}
		tree, err := c.copyOf(name)
		if err == nil {
			err = narrow(tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		}
		if err == nil {
			err = errors.Join(put(tree, path), same(tree, path))
		}
		if err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	return nil
}
