package netns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// InMounts runs fn on a thread in the mount namespace that a descriptor refers
// to, with the root of that. The thread is given up, as there is no way back.
func InMounts(ns int, fn func() error) error {
	var out outcome
	onThread(func() {
		out.run(func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil { // see StartIn
				return fmt.Errorf("leave the shared working directory: %w", err)
			}
			if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter a mount namespace: %w", err)
			}
			return fn()
		})
	})
	return out.resume()
}
