package confine

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// allowed is what Go's runtime and our processes need after start, whatever the
// arguments. Descriptors come by SCM_RIGHTS or by inheritance, so nothing is
// opened or executed. The kernel knows beforehand of each of these that it is
// allowed, and does not run the filter for it: none of them may need a look at
// its arguments. Before Linux 5.11 it does run; then the first are the quickest.
var allowed = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EPOLL_PWAIT, unix.SYS_FUTEX, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_SENDMSG,
	unix.SYS_EPOLL_PWAIT2, unix.SYS_NANOSLEEP, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_FCNTL, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_PREAD64,
	unix.SYS_ACCEPT4, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME,
	unix.SYS_RESTART_SYSCALL, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETGID, unix.SYS_GETEUID,
}

// What the filter answers.
var (
	yes      = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	no       = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	notKnown = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	end      = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

// number is where seccomp_data has the call's number, and argument the low half
// of an argument on a little-endian machine: what the calls below look at fits.
var number = bpf.LoadAbsolute{Off: 0, Size: 4}

func argument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: 16 + 8*n, Size: 4} }

// call is what is done about one system call: body begins with its number in the
// accumulator, and ends in an answer.
func call(nr uint32, body ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: uint8(len(body))}}, body...)
}

// oneOf allows a call with one of these values.
func oneOf(nr, arg uint32, values ...uint32) []bpf.Instruction {
	body := []bpf.Instruction{argument(arg)}
	for i, v := range values {
		body = append(body, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	return call(nr, append(body, no, yes)...)
}

// without allows a call without any of these bits.
func without(nr, arg, bits uint32) []bpf.Instruction {
	return call(nr, argument(arg), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipTrue: 1}, yes, no)
}

const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// program is the filter of this process: every other call is answered with EPERM.
func program(kind Kind) []bpf.Instruction {
	nrs := slices.Concat(allowed, archSyscalls)
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4}, // seccomp_data.arch
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		end,
		number,
	}
	if kind == Dials {
		nrs = append(nrs, unix.SYS_CONNECT, unix.SYS_BIND)
	}
	for _, nr := range nrs {
		p = append(p, call(nr, yes)...)
	}
	if kind == Dials { // no unix socket leads to a service of the host's, no packet socket to its wires
		p = append(p, oneOf(unix.SYS_SOCKET, 0, unix.AF_INET, unix.AF_INET6)...)
	}
	// Threads, yes; processes, and namespaces with rights in them, no. clone3
	// hides its flags in memory: a C library goes back to clone on ENOSYS.
	p = append(p, call(unix.SYS_CLONE3, notKnown)...)
	p = append(p, call(unix.SYS_CLONE, argument(0),
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: newNamespaces, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.CLONE_THREAD, SkipTrue: 1},
		yes, no)...)
	// Code is what the binary has, and nothing that came over a wire.
	p = append(p, without(unix.SYS_MMAP, 2, unix.PROT_EXEC)...)
	p = append(p, without(unix.SYS_MPROTECT, 2, unix.PROT_EXEC)...)
	p = append(p, oneOf(unix.SYS_TGKILL, 0, uint32(os.Getpid()))...) // its own threads: others may have its uid
	p = append(p, oneOf(unix.SYS_PRCTL, 0, unix.PR_SET_VMA)...)      // Go's runtime names its memory
	p = append(p, oneOf(unix.SYS_IOCTL, 1, deviceIoctls...)...)      // no terminal's, no network's
	return append(p, no)
}

// deviceIoctls are what a router asks of a device that it is handed.
var deviceIoctls = []uint32{unix.TUNGETIFF, unix.TUNSETVNETHDRSZ, unix.TUNSETOFFLOAD}

// filterSyscalls puts the filter in force for all threads (seccomp(2),
// Documentation/userspace-api/seccomp_filter.rst).
func filterSyscalls(kind Kind) error {
	raw, err := bpf.Assemble(program(kind))
	if err != nil {
		return fmt.Errorf("seccomp filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	stray, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp filter: %w", errno)
	}
	if stray != 0 { // a thread that has another filter: not one of ours
		return fmt.Errorf("seccomp filter: thread %d cannot have it", stray)
	}
	return nil
}
