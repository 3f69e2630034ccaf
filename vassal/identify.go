package vassal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// NamespaceOf is the inode of the network namespace of the process that a
// pidfd refers to. The pid is looked up for the moment; that the process still
// lives afterwards proves that the pid was its own.
func NamespaceOf(pidfd *os.File) (uint64, error) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inode uint64
	var result error
	err = raw.Control(func(fd uintptr) {
		var pid int
		if pid, result = pidOf(int(fd)); result != nil {
			return
		}
		if inode, result = namespaceOfPID(pid); result == nil {
			result = unix.PidfdSendSignal(int(fd), 0, nil, 0)
		}
	})
	return inode, errors.Join(err, result)
}

func namespaceOfPID(pid int) (uint64, error) {
	st, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Ino, nil
}

// OwnNamespace is the inode of the emperor's own network namespace; 0 when it
// cannot be read.
func OwnNamespace() uint64 {
	inode, err := namespaceOfPID(os.Getpid())
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
	for {
		killed, err := killNamespaceOnce(inode)
		if err != nil || killed == 0 {
			return err
		}
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
		if got, err := namespaceOfPID(pid); err == nil && got == inode && !isZombie(pid) {
			if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				killed++
			}
		}
		_ = unix.Close(fd)
	}
	return killed, nil
}

func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the name before may hold anything but that
	for ok && strings.Contains(rest, ") ") {
		_, rest, _ = strings.Cut(rest, ") ")
	}
	return ok && strings.HasPrefix(rest, "Z")
}
