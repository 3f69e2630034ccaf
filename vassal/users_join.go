package vassal

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// usersFD is the descriptor of the user namespace of a stage that joins a
// generation which has one.
func (plan *Plan) usersFD() int { return joinFD + plan.Enter + 2 }

// errStage is a step of a child that failed, and why.
type errStage struct {
	step  uint32
	errno uint32
}

// stageSteps are the words for errStage.
var stageSteps = []string{"", "enter namespace", "enter the root", "enter the user namespace", "be its root", "a session of its own", "run our program"}

const (
	stepNamespace = iota + 1
	stepRoot
	stepUsers
	stepRights
	stepSession
	stepProgram
)

// entry is what a child that enters a user namespace needs, made before: there it
// has no runtime of Go's to make anything.
type entry struct {
	first, namespaces int // descriptors of namespaces
	root, dir, users  int
	self              int // our program
	failed            int // where it says what failed
	env               []*byte
	args              []*byte
	dot, empty        *byte
}

// startInside starts the stage that becomes a command beside the app, in all of
// the app's namespaces. Only a process with a single thread can enter a user
// namespace, which no program in Go ever is; so a child goes there before it
// executes our program.
func (plan *Plan) startInside(p *pipe) (int, error) {
	self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(self)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(ends[0])
	e := entry{
		first: joinFD, namespaces: plan.Enter, root: joinFD + plan.Enter, dir: joinFD + plan.Enter + 1, users: plan.usersFD(),
		self: self, failed: ends[1],
	}
	if err := e.prepare([]string{os.Args[0], InitStage}, os.Environ()); err != nil {
		return 0, errors.Join(err, unix.Close(ends[1]))
	}
	pidfd := int32(-1)
	syscall.ForkLock.Lock()
	pid, errno := e.fork(&pidfd)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(&e)
	_ = unix.Close(ends[1])
	if errno != 0 {
		return 0, errno
	}
	var failed errStage
	n, err := unix.Read(ends[0], (*[unsafe.Sizeof(failed)]byte)(unsafe.Pointer(&failed))[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(ends[0], (*[unsafe.Sizeof(failed)]byte)(unsafe.Pointer(&failed))[:])
	}
	if n == 0 && err == nil {
		return pid, errors.Join(p.send(word{App: true, Inside: true}, int(pidfd)), unix.Close(int(pidfd)))
	}
	_, werr := unix.Wait4(pid, nil, 0, nil)
	if n > 0 && int(failed.step) < len(stageSteps) {
		err = fmt.Errorf("%s: %w", stageSteps[failed.step], syscall.Errno(failed.errno))
	}
	return 0, errors.Join(err, werr, unix.Close(int(pidfd)))
}

func (e *entry) prepare(args, env []string) (err error) {
	if e.args, err = syscall.SlicePtrFromStrings(args); err != nil {
		return err
	}
	if e.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return err
	}
	if e.dot, err = syscall.BytePtrFromString("."); err != nil {
		return err
	}
	e.empty, err = syscall.BytePtrFromString("")
	return err
}

// fork makes the child. What runs there neither allocates, nor grows its stack, nor
// asks the runtime for anything.
//
//go:noinline
//go:norace
//go:nocheckptr
func (e *entry) fork(pidfd *int32) (int, syscall.Errno) {
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_PIDFD, 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return int(pid), errno
	}
	afterForkInChild()
	e.enter()
	return 0, 0 // never
}

// enter is the child's whole life up to our program.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (e *entry) enter() {
	for fd := e.first; fd < e.first+e.namespaces; fd++ {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETNS, uintptr(fd), 0, 0); errno != 0 {
			e.fail(stepNamespace, errno)
		}
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_FCHDIR, uintptr(e.root), 0, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CHROOT, uintptr(unsafe.Pointer(e.dot)), 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_FCHDIR, uintptr(e.dir), 0, 0)
	}
	if errno != 0 {
		e.fail(stepRoot, errno)
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETNS, uintptr(e.users), unix.CLONE_NEWUSER, 0); errno != 0 {
		e.fail(stepUsers, errno)
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
	}
	if errno != 0 {
		e.fail(stepRights, errno)
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
		e.fail(stepSession, errno)
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, handshakeFD, unix.F_SETFD, 0); errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(e.self), uintptr(unsafe.Pointer(e.empty)),
			uintptr(unsafe.Pointer(&e.args[0])), uintptr(unsafe.Pointer(&e.env[0])), unix.AT_EMPTY_PATH, 0)
	}
	e.fail(stepProgram, errno)
}

// fail says what went wrong, and ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (e *entry) fail(step uint32, errno syscall.Errno) {
	f := errStage{step, uint32(errno)}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(e.failed), uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

// What package syscall tells Go's runtime about forks.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()
