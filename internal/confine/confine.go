package confine

import (
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind is what a process needs to go on doing.
type Kind int

// The kinds.
const (
	Given Kind = iota // it works with the descriptors that it is given, and opens and connects nothing
	Dials             // it also makes IP sockets, and connects them
)

// Process confines this process, all its threads, for good. One that is not
// root keeps the root directory that it has.
func Process(uid, gid int, kind Kind) error {
	if syscall.Getuid() == 0 {
		if err := emptyRoot(); err != nil {
			return fmt.Errorf("empty root directory: %w", err)
		}
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		if err := syscall.Setresgid(gid, gid, gid); err != nil {
			return fmt.Errorf("gid %d: %w", gid, err)
		}
		// From root to another uid the kernel clears every capability (capabilities(7)).
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return fmt.Errorf("uid %d: %w", uid, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	if err := limit(); err != nil {
		return err
	}
	// A thread's own, and what the filter wants of the thread that sets it:
	// TSYNC spreads both to all threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return filterSyscalls(kind)
}

// emptyRoot makes a file system that is mounted nowhere, and has nothing in it, the
// root of this process: Go's threads share one. No path leads out of it again.
func emptyRoot() error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w; as root it needs CAP_SYS_ADMIN", err)
	}
	defer unix.Close(fs)
	for key, value := range map[string]string{"size": "4k", "nr_inodes": "1", "mode": "0555"} {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return fmt.Errorf("%s=%s: %w", key, value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(root)
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("chdir: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w; as root it needs CAP_SYS_CHROOT", err)
	}
	return nil
}

// limit sets limits that need no number of the emperor's. Open files stay as many as
// he may have: there is one for each device and peer. Threads have no limit of their
// own: Go's runtime dies without one, and the filter lets no process be made.
func limit() error {
	none := []int{unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_MSGQUEUE, unix.RLIMIT_NICE, unix.RLIMIT_RTPRIO}
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		none = append(none, unix.RLIMIT_FSIZE) // it has no file, unless its standard error is one
	}
	for _, what := range none {
		if err := unix.Setrlimit(what, &unix.Rlimit{}); err != nil {
			return fmt.Errorf("limit %d: %w", what, err)
		}
	}
	return nil
}
