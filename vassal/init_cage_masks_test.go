package vassal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// dangerous are files by which who may write them gets the machine. None is written:
// to open one would be enough.
var dangerous = []string{
	"/proc/kcore", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/acpi/wakeup", "/proc/mtrr", "/proc/slabinfo", "/proc/timer_list",
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/randomize_va_space", "/proc/sys/kernel/sysrq",
	"/proc/sys/kernel/kptr_restrict", "/proc/sys/kernel/dmesg_restrict", "/proc/sys/kernel/unprivileged_bpf_disabled", "/proc/sys/kernel/perf_event_paranoid", "/proc/sys/kernel/hostname",
	"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max", "/proc/sys/kernel/panic", "/proc/sys/kernel/core_uses_pid", "/proc/sys/kernel/ngroups_max", "/proc/sys/kernel/printk",
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/drop_caches", "/proc/sys/vm/panic_on_oom", "/proc/sys/vm/mmap_min_addr", "/proc/sys/vm/swappiness",
	"/proc/sys/fs/protected_symlinks", "/proc/sys/fs/protected_hardlinks", "/proc/sys/fs/suid_dumpable", "/proc/sys/fs/file-max", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward",
	"/sys/kernel/uevent_helper", "/sys/kernel/profiling", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/debug/x", "/sys/kernel/security/x", "/sys/power/state", "/sys/module/kernel/parameters/panic",
	"/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max", "/sys/class/net/lo/mtu", "/sys/firmware/x", "/sys/devices/system/cpu/cpu0/uevent",
}

// opensThem tells of each that it can open for writing, and how many it cannot.
var opensThem = "n=0; for p in " + strings.Join(dangerous, " ") + `; do
if (: >>$p) 2>/dev/null; then echo "OPEN $p"; else n=$((n+1)); fi; done; echo "refused n${n}e"`

// Nothing of /proc and /sys by which an app could get the machine can be opened for
// writing, though it is uid 0; and masks are what they should be, as the kernel says
// it: empty, read-only, of the vassal's own file system, and devices by number. // T18
func TestMasks(t *testing.T) {
	nettest.Root(t)
	p := confinedPlan(LevelDefault, "")
	p.UID, p.GID = 0, 0
	all := fmt.Sprintf("refused n%de", len(dangerous))
	j := newJail(t, Link{Device: "eth0"})
	tries{{opensThem, all}, {opensThem + " | grep OPEN || echo none", "none"}}.try(t, j, p)

	p.Args = []string{"/bin/sleep", "1000"}
	a := startApp(t, j, Launch{Plan: p, Namespaces: fullNamespaces})
	root := fmt.Sprintf("/proc/%d/root", a.PID)
	seen := 0
	for _, path := range append(append(append([]string{}, maskedProc...), maskedSys...), secrets...) {
		var on unix.Statfs_t
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK || unix.Lstat(root+path, &st) != nil {
			continue // the host has none
		}
		seen++
		if err := unix.Statfs(root+path, &on); err != nil || on.Type != unix.TMPFS_MAGIC || on.Flags&unix.ST_RDONLY == 0 {
			t.Errorf("%s is of file system %#x, flags %#x, %v", path, on.Type, on.Flags, err)
		}
		names, _ := os.ReadDir(root + path)
		if folder := st.Mode&unix.S_IFMT == unix.S_IFDIR; len(names) > 0 || !folder && (st.Size > 0 || st.Mode&0o777 != 0) {
			t.Errorf("%s has mode %o, size %d, %d entries", path, st.Mode, st.Size, len(names))
		}
	}
	if seen < 10 {
		t.Errorf("only %d masks are there", seen)
	}
	for _, n := range nodes {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, devices, n.name), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(n.major, n.minor) {
			t.Errorf("%s: mode %o, %d, %v", n.name, st.Mode, st.Rdev, err)
		}
	}
	a.Kill()
	a.Wait()
}

// Whose root it is may change folders of it for links, and its device null for another
// file, while the cage is built: then it is not built, or it is as ever. // T18
func TestSoakMasksOfARacedRoot(t *testing.T) {
	nettest.Root(t)
	root := filepath.Join(sharedFolder(t), "root")
	nettest.Rootfs(t, root, "cat", "grep")
	for _, name := range []string{"run", "sys", "data", "data/sys", "data/net", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"proc.link": "data", "sys.link": "data", "dev.link": "proc", "null.link": "/proc/sysrq-trigger", "run.link": "proc", "tmp.link": "sys"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/dev/null", nil, 0o666); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	var over atomic.Bool
	raced := make(chan struct{})
	go func() {
		for !over.Load() {
			for a, b := range map[string]string{ // each there and back, so that most of the time all is right
				"proc": "proc.link", "sys": "sys.link", "dev/null": "null.link", "dev": "dev.link", "run": "run.link", "tmp": "tmp.link",
			} {
				for range 2 {
					_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, a), unix.AT_FDCWD, filepath.Join(root, b), unix.RENAME_EXCHANGE) // null may be elsewhere for now
				}
			}
		}
		close(raced)
	}()
	p := confinedPlan(LevelDefault, "")
	p.UID, p.GID = 0, 0
	p.Isolation = Isolation{Root: root, Rootfs: true}
	j := newJail(t, Link{Device: "eth0"})
	ran, refused := 0, 0
	why := map[string]int{}
	rounds := 20
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		rounds = 1000
	}
	for range rounds {
		p.Args = []string{"/bin/sh", "-c", opensThem}
		s, err := tryStart(t, j, Launch{Plan: p, Namespaces: fullNamespaces})
		if err != nil {
			refused++
			why[err.Error()]++
			continue
		}
		out, _ := s.end(t)
		switch {
		case strings.Contains(out, "OPEN "):
			t.Errorf("it can write: %s", out)
		default:
			ran++
		}
	}
	over.Store(true)
	<-raced
	t.Logf("it ran %d times, and was refused %d times: %v", ran, refused, why)
	if refused == 0 {
		t.Error("nobody raced")
	}
}
