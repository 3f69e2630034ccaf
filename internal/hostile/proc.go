package hostile

import (
	"golang.org/x/sys/unix"
)

const noWriting = "masks, and mounts that are read-only; Landlock"

// The files are opened for writing, and nothing is written.
var procRows = []Row{
	{
		"write-core-pattern", "/proc and /sys", "names a program that the host's kernel is to run for core dumps, modules, hotplug, requests for keys",
		noWriting, writes("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/sys/kernel/uevent_helper",
			"/proc/sys/kernel/poweroff_cmd", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/usermodehelper/bset"),
	},
	{
		"write-sysrq", "/proc and /sys", "opens what restarts or crashes the machine: sysrq-trigger, power/state",
		noWriting, writes("/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/panic", "/proc/sys/vm/panic_on_oom", "/sys/power/state", "/sys/power/disk"),
	},
	{
		"write-sysctl", "/proc and /sys", "changes the kernel's settings: randomisation, protected links, ptrace_scope, dmesg, overcommit, ip_forward, hostname",
		noWriting, writes("/proc/sys/kernel/randomize_va_space", "/proc/sys/fs/protected_hardlinks", "/proc/sys/fs/protected_symlinks", "/proc/sys/fs/suid_dumpable",
			"/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/kernel/dmesg_restrict", "/proc/sys/kernel/kptr_restrict", "/proc/sys/kernel/perf_event_paranoid",
			"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/accept_redirects",
			"/proc/sys/kernel/hostname", "/proc/sys/kernel/pid_max", "/proc/sys/fs/file-max", "/proc/sys/kernel/ns_last_pid", "/proc/sys/user/max_user_namespaces"),
	},
	{
		"write-hardware", "/proc and /sys", "opens settings of the hardware: interrupts, PCI, memory types, module parameters, block devices, wake-up",
		noWriting, writes("/proc/irq/default_smp_affinity", "/proc/bus/pci/00/00.0", "/proc/mtrr", "/proc/acpi/wakeup", "/proc/fs/ext4/options",
			"/sys/module/*/parameters/*", "/sys/bus/pci/rescan", "/sys/block/*/queue/scheduler", "/sys/kernel/mm/transparent_hugepage/enabled",
			"/sys/devices/system/cpu/cpu[1-9]/online", "/sys/kernel/oops_count", "/sys/firmware/efi/efivars/*", "/sys/fs/selinux/load", "/sys/kernel/profiling"),
	},
	{
		"write-tracing", "/proc and /sys", "traces the kernel: tracefs, debugfs, kprobes, livepatch",
		noWriting, writes("/sys/kernel/tracing/kprobe_events", "/sys/kernel/tracing/tracing_on", "/sys/kernel/tracing/trace_marker", "/sys/kernel/tracing/uprobe_events",
			"/sys/kernel/debug/kprobes/enabled", "/sys/kernel/debug/tracing/tracing_on", "/sys/kernel/debug/sched/features", "/proc/dynamic_debug/control"),
	},
	{
		"read-kernel", "/proc and /sys", "reads the kernel: its memory, timers, keys, scheduler, maps of its pages",
		"masks; permissions", func(*Site) Finding {
			return anyOf([]string{
				"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
				"/proc/slabinfo", "/proc/vmallocinfo", "/proc/page_owner", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security",
			}, hasContent)
		},
	},
	{
		"read-hardware", "/proc and /sys", "reads the hardware: firmware, energy, temperature, interrupts, disks, sound",
		"masks", func(*Site) Finding {
			return anyOf([]string{
				"/sys/firmware/acpi", "/sys/firmware/dmi", "/sys/firmware/efi", "/sys/devices/virtual/powercap", "/sys/devices/system/cpu/cpu0/thermal_throttle", "/proc/acpi", "/proc/asound",
				"/proc/scsi", "/proc/interrupts",
			}, hasContent)
		},
	},
	{
		"kernel-addresses", "/proc and /sys", "reads addresses of the kernel's code and of its memory (kallsyms, iomem)",
		"masks; no capability: they read as 0", func(*Site) Finding {
			return anyOf([]string{"/proc/kallsyms", "/proc/iomem"}, addresses)
		},
	},
}

// writes is the attempt to open files for writing, those of them that are there.
func writes(patterns ...string) func(*Site) Finding {
	return func(*Site) Finding {
		paths := existing(patterns...)
		return anyOf(paths, func(path string) Finding { return opens(path, unix.O_WRONLY) })
	}
}
