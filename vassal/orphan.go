package vassal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An orphan is a process whose emperor is gone, and which the next one has
// adopted: nobody's child as far as he can wait, but known by its pidfd.

// reap says how the process ended, which it has.
func (g *Generation) reap() Exit {
	if g.process != nil {
		state, err := g.process.Wait()
		if err != nil {
			return Exit{Err: err}
		}
		return g.exitOf(state.Sys().(syscall.WaitStatus))
	}
	if g.end == nil {
		return g.exit // it had ended under the emperor before
	}
	defer g.end.Close()
	var exit Exit
	err := control(g.end, func(fd int) error {
		status, err := statusOf(fd)
		exit = g.exitOf(status)
		return err
	})
	if err != nil {
		return Exit{Unknown: true}
	}
	return exit
}

// pidfdInfo is the kernel's struct pidfd_info, as of Linux 6.15.
type pidfdInfo struct {
	mask, cgroup    uint64
	pid, tgid, ppid uint32
	ids             [8]uint32
	exit            int32
}

// Of PIDFD_GET_INFO in linux/pidfd.h.
const (
	pidfdGetInfo  = 3<<30 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xff<<8 | 11
	pidfdInfoExit = 1 << 3
)

// errUnknown says that nobody but its parent knows how a process ended.
var errUnknown = errors.New("only its parent knows")

// statusOf is the wait status of a process that has ended: of one that has been
// waited for by its pidfd (Linux 6.15), of a zombie by /proc.
func statusOf(pidfd int) (syscall.WaitStatus, error) {
	told := func() (syscall.WaitStatus, bool) {
		info := pidfdInfo{mask: pidfdInfoExit}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), pidfdGetInfo, uintptr(unsafe.Pointer(&info)))
		return syscall.WaitStatus(info.exit), errno == 0 && info.mask&pidfdInfoExit != 0
	}
	if status, ok := told(); ok {
		return status, nil
	}
	pid, err := pidOf(pidfd)
	if err != nil {
		return 0, err
	}
	if pid > 0 {
		status, err := zombieStatus(pid)
		if again, perr := pidOf(pidfd); err == nil && perr == nil && again == pid {
			return status, nil
		}
	}
	if status, ok := told(); ok { // it was waited for meanwhile
		return status, nil
	}
	return 0, errUnknown
}

// zombieStatus is the last field of /proc/PID/stat.
func zombieStatus(pid int) (syscall.WaitStatus, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	text := string(b)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) == 0 || fields[0] != "Z" {
		return 0, errUnknown
	}
	n, err := strconv.Atoi(fields[len(fields)-1])
	return syscall.WaitStatus(n), err
}

// signalProcess signals the process that was started.
func (g *Generation) signalProcess(sig syscall.Signal) error {
	if g.process != nil {
		return g.process.Signal(sig)
	}
	return g.signalOrphan(sig, 0)
}

// signalGroup signals the process group that it leads.
func (g *Generation) signalGroup(sig syscall.Signal) error {
	if g.process != nil {
		return unix.Kill(-g.pid, sig) // not waited for: the number is its own
	}
	const group = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
	err := g.signalOrphan(sig, group)
	if errors.Is(err, unix.EINVAL) {
		if err = g.signalOrphan(0, 0); err == nil {
			err = unix.Kill(-g.pid, sig)
		}
	}
	return err
}

func (g *Generation) signalOrphan(sig syscall.Signal, flags int) error {
	if g.end == nil {
		return os.ErrProcessDone
	}
	err := control(g.end, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, flags) })
	if errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}

// control makes a system call on a file's descriptor.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if raw.Control(func(fd uintptr) { result = call(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return result
}
