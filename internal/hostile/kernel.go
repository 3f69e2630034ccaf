package hostile

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	filtered   = "seccomp"
	privileged = "no capability; seccomp"
)

var kernelRows = []Row{
	{"bpf", "the kernel", "loads programs into the kernel (bpf)", filtered, func(*Site) Finding {
		attr := [16]uint32{2, 4, 4, 1} // an array of one number
		return judge(descriptor(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)))
	}},
	{"perf", "the kernel", "measures the processor, and what others do on it (perf_event_open)", filtered, func(*Site) Finding {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
		attr.Size = uint32(unsafe.Sizeof(attr))
		fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err == nil {
			_ = unix.Close(fd)
		}
		return judge(err, unix.ENOENT)
	}},
	{"userfaultfd", "the kernel", "stops the kernel amid its own work (userfaultfd)", filtered, func(*Site) Finding {
		const userModeOnly = 1
		if f := judge(descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC)); f.Outcome != Contained {
			return f
		}
		return judge(descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|userModeOnly))
	}},
	{"io-uring", "the kernel", "has system calls done past the filter (io_uring_setup)", filtered, func(*Site) Finding {
		var params [120]byte
		return judge(descriptor(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params))))
	}},
	{"modules", "the kernel", "loads and unloads modules (init_module, finit_module, delete_module)", privileged, func(*Site) Finding {
		name := []byte("of_hostile\x00")
		err := sys(unix.SYS_INIT_MODULE, 0, 0, 0)
		f := judge(err, unix.ENOEXEC, unix.EFAULT)
		if f.Outcome != Contained || f.Absent {
			return f
		}
		if err = sys(unix.SYS_FINIT_MODULE, noFD, 0, 0); !refused(err) {
			return judge(err, unix.EBADF)
		}
		err = sys(unix.SYS_DELETE_MODULE, uintptr(unsafe.Pointer(&name[0])), unix.O_NONBLOCK)
		return judge(err, unix.ENOENT)
	}},
	{"kexec", "the kernel", "starts another kernel (kexec_load, kexec_file_load)", privileged, func(*Site) Finding {
		const tooMany, noFlags = 1 << 20, 0xFFFF0000
		if err := sys(unix.SYS_KEXEC_LOAD, 0, tooMany, 0, noFlags|0xFFFF); !refused(err) {
			return judge(err, unix.EINVAL)
		}
		err := sys(unix.SYS_KEXEC_FILE_LOAD, noFD, noFD, 0, 0, ^uintptr(0))
		return judge(err, unix.EINVAL, unix.EBADF)
	}},
	{"reboot", "the kernel", "restarts the machine (reboot, with a wrong magic number)", privileged, func(*Site) Finding {
		err := sys(unix.SYS_REBOOT, 0, 0, unix.LINUX_REBOOT_CMD_CAD_OFF, 0)
		return judge(err, unix.EINVAL)
	}},
	{"clock", "the kernel", "sets the clock (settimeofday, adjtimex, with a time zone and a tick that there are not)", privileged, func(*Site) Finding {
		zone := [2]int32{1 << 20, 0}
		if err := sys(unix.SYS_SETTIMEOFDAY, 0, uintptr(unsafe.Pointer(&zone))); !refused(err) {
			return judge(err, unix.EINVAL)
		}
		_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: 0})
		return judge(err, unix.EINVAL)
	}},
	{"swap", "the kernel", "swaps to a file of its own (swapon, of a path that there is not)", privileged, func(*Site) Finding {
		path := []byte(nowhere + "\x00")
		err := sys(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&path[0])), 0)
		return judge(err, unix.ENOENT)
	}},
	{"accounting", "the kernel", "writes down what every process does (acct, of a path that there is not)", privileged, func(*Site) Finding {
		return judge(unix.Acct(nowhere), unix.ENOENT)
	}},
	{"personality", "the kernel", "makes all that it may read executable too, and its addresses known (personality)", filtered, func(*Site) Finding {
		const readImpliesExec, noRandomize = 0x0400000, 0x0040000
		err := sys(unix.SYS_PERSONALITY, readImpliesExec|noRandomize)
		return judge(err)
	}},
	{"locked-memory", "the kernel", "locks more memory than its limit (mlock)", "hard limits; no capability", func(*Site) Finding {
		const size = 256 << 20
		b, err := unix.Mmap(-1, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			return unclear("%v", err)
		}
		defer func() { _ = unix.Munmap(b) }()
		const onFault = 1
		err = sys(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&b[0])), size, onFault)
		if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) {
			return contained("%v", err)
		}
		return judge(err)
	}},
}
