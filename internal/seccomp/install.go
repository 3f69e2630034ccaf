package seccomp

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install puts a program of Compile in force for the calling thread and what it
// executes, for good. The thread has no_new_privs already.
func Install(program []byte) error {
	if len(program) == 0 || len(program)%instructionSize != 0 {
		return errors.New("seccomp filter: it is no program")
	}
	prog := unix.SockFprog{Len: uint16(len(program) / instructionSize), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp filter: %w", errno)
	}
	return nil
}
