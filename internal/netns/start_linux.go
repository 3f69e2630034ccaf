package netns

import (
	"fmt"
	"os/exec"

	"golang.org/x/sys/unix"
)

// StartIn starts cmd in namespaces of the process that pidfd refers to.
// Namespaces is a set of unix.CLONE_NEW* flags. With CLONE_NEWNS also cmd.Path
// and the paths of cmd's own are those of that process; cmd.Dir has to be set,
// for the working directory is its root otherwise.
//
// The thread that starts cmd is given up, as there is no way back from another
// mount namespace without its own root and working directory.
func StartIn(pidfd, namespaces int, cmd *exec.Cmd) error {
	var out outcome
	onThread(func() {
		out.run(func() error {
			// Threads of a process share their root and working directory, and
			// such a thread may not enter a mount namespace (setns(2)).
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("leave the shared working directory: %w", err)
			}
			if err := unix.Setns(pidfd, namespaces); err != nil {
				return fmt.Errorf("enter namespaces of a process: %w", err)
			}
			return cmd.Start()
		})
	})
	return out.resume()
}
