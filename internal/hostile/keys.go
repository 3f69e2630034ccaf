package hostile

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

var keyRows = []Row{
	{
		"keys-of-emperor", "keys", "looks for the emperor's keys in its session's keyring (keyctl)",
		"a session keyring of its own; seccomp", func(s *Site) Finding {
			return anyOf(s.Keys, func(description string) Finding {
				id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", description, 0)
				if err == nil {
					return escaped("key %d", id)
				}
				if errors.Is(err, unix.ENOKEY) || errors.Is(err, unix.EKEYREVOKED) {
					return contained("%v", err)
				}
				return judge(err)
			})
		},
	},
	{
		"keyring-of-user", "keys", "leaves a key for neighbours of the same uid, in the keyring of that uid (add_key)",
		"seccomp", func(*Site) Finding {
			id, err := unix.AddKey("user", "of-hostile", []byte{1}, unix.KEY_SPEC_USER_KEYRING)
			if err == nil {
				_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
			}
			return judge(err)
		},
	},
	{
		"request-key", "keys", "has the kernel run the host's program that fetches keys (request_key)",
		"seccomp", func(*Site) Finding {
			kind, name := []byte("user\x00"), []byte("of-hostile-none\x00")
			// Without a callout the kernel only looks, and runs nothing.
			err := sys(unix.SYS_REQUEST_KEY, uintptr(unsafe.Pointer(&kind[0])), uintptr(unsafe.Pointer(&name[0])), 0, 0)
			return judge(err, unix.ENOKEY)
		},
	},
}
