package netns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Within runs fn on a thread that has entered the namespaces which the
// descriptors refer to. Of these only network, IPC, UTS and cgroup namespaces
// are the thread's own; a pid namespace is that of the processes which fn
// starts. The thread is given up afterwards: what starts in it is all that fn
// is for.
func Within(namespaces []int, fn func() error) error {
	var out outcome
	onThread(func() {
		out.run(func() error {
			for _, fd := range namespaces {
				if err := unix.Setns(fd, 0); err != nil {
					return fmt.Errorf("enter namespaces: %w", err)
				}
			}
			return fn()
		})
	})
	return out.resume()
}
