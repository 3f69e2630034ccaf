package tuntap

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A shard's reads and writes never block, so Go's scheduler need not hear of
// them: that saves its bookkeeping before and after each (runtime.entersyscall),
// some tens of nanoseconds of the two microseconds that a packet costs.

// rawRead is read(2) on a non-blocking descriptor; b is not empty.
func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// rawWrite is write(2) on a non-blocking descriptor; b is not empty.
func rawWrite(fd int, b []byte) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return errno
}
