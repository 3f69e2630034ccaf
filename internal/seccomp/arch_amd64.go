package seccomp

import "golang.org/x/sys/unix"

// The architecture as the kernel and the list call it.
const (
	auditArch = unix.AUDIT_ARCH_X86_64
	archName  = "amd64"
)
