package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/pidfd"
)

// NamespaceOf is the inode of the network namespace of the process that a
// pidfd refers to.
func NamespaceOf(process *os.File) (uint64, error) {
	at, err := WhereIs(process)
	return at.Network, err
}

// Whereabouts are the inodes of a process's namespaces.
type Whereabouts struct{ Network, User uint64 }

// WhereIs says where the process is that a pidfd refers to. The pid is looked up
// for the moment; that the process still lives afterwards proves that the pid was
// its own.
func WhereIs(process *os.File) (at Whereabouts, err error) {
	raw, err := process.SyscallConn()
	if err != nil {
		return at, err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		var pid int
		if pid, result = pidfd.PID(int(fd)); result != nil {
			return
		}
		if at, result = whereabouts(strconv.Itoa(pid)); result == nil {
			result = unix.PidfdSendSignal(int(fd), 0, nil, 0)
		}
	})
	return at, errors.Join(err, result)
}

// Here is where the emperor is.
func Here() (Whereabouts, error) { return whereabouts("self") }

func whereabouts(process string) (at Whereabouts, err error) {
	at.Network, err = inode("/proc/" + process + "/ns/net")
	if err == nil {
		at.User, err = inode("/proc/" + process + "/ns/user")
	}
	return at, err
}

func inode(path string) (uint64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Ino, nil
}

// OwnNamespace is the inode of the emperor's own network namespace; 0 when it
// cannot be read.
func OwnNamespace() uint64 {
	inode, err := netns.Own()
	if err != nil {
		return 0
	}
	return inode
}

// KillNamespace kills every process of a network namespace: the way to end a
// vassal's children where there is no v2 cgroup tree. It must not be given
// the namespace of the host.
func KillNamespace(inode uint64) error {
	if own := OwnNamespace(); own == 0 || own == inode || inode == 0 {
		return errors.New("refusing to kill the emperor's own network namespace")
	}
	deadline := time.Now().Add(removeTimeout)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		killed, err := killNamespaceOnce(inode)
		if err != nil || killed == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of a network namespace do not end", killed)
		}
		time.Sleep(wait) // nothing tells when others' children have ended
	}
}

// killNamespaceOnce kills who is there now; their children may come after it.
func killNamespaceOnce(inode uint64) (killed int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // gone
		}
		if livesIn(pid, inode) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			killed++
		}
		_ = unix.Close(fd)
	}
	return killed, nil
}

// livesIn says whether a thread of the process is in the namespace. Any
// thread counts: a process whose first thread has ended looks like a zombie
// without namespaces, and goes on with the others.
func livesIn(pid int, inode uint64) bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(tasks, func(path string) bool {
		st, err := os.Stat(path) // fails for a zombie: it has given its namespaces back
		return err == nil && st.Sys().(*syscall.Stat_t).Ino == inode
	})
}
