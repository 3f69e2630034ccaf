package seccomp

import "golang.org/x/sys/unix"

// The architecture as the kernel and the list call it.
const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	archName  = "arm64"
)
