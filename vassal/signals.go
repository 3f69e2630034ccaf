package vassal

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultSignals gives ignored signals their default meaning: exec keeps what
// is ignored (execve(2)), and what the emperor's starter ignored (nohup) is no
// business of an app. Handled ones exec resets by itself.
func defaultSignals() {
	const last, ignored = 64, 1 // SIG_IGN
	// struct sigaction of the kernel, not of libc (linux/signal_types.h).
	type sigaction struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := uintptr(1); sig <= last; sig++ {
		var was, zero sigaction
		size := unsafe.Sizeof(was.mask)
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&was)), size, 0, 0)
		if errno == 0 && was.handler == ignored {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&zero)), 0, size, 0, 0)
		}
	}
}
