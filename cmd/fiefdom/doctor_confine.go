package main

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// checkConfinement looks at what takes apps' rights away.
func checkConfinement() finding {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return fail("use a kernel with CONFIG_SECCOMP_FILTER, or write confine = compat", "system calls cannot be filtered: %v", errno)
	}
	if lacks := vassal.LacksOfKernel(); len(lacks) > 0 {
		return warn("install a newer Linux, or boot with lsm=landlock,… ; confine = strict is refused here", "it lacks %s", strings.Join(lacks, "; "))
	}
	return fine("system calls can be filtered, Landlock has version %d", vassal.LandlockABI())
}
