package vassal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setnsTime bounds the wait for the socket of setns and for its answer.
const setnsTime = 30 * time.Second

// setns takes this thread into the namespaces that the socket of setns gives.
// What is the same as here already is left out: a process with threads, as we
// are, cannot enter a time or user namespace, not even its own.
func (plan *Plan) setns() error {
	return plan.givenNamespaces(func(fds []int) error {
		// Another's mounts come with another's root: threads share theirs until then.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the shared working directory: %w", err)
		}
		for _, fd := range fds {
			if isPIDs(fd) {
				return errors.New("it gave another pid namespace a moment ago; start the vassal again")
			}
			if err := unix.Setns(fd, 0); err != nil {
				return fmt.Errorf("enter %s: %w", nsName(fd), err)
			}
		}
		return nil
	})
}

// setnsPIDs has this thread's children be born in the pid namespace that the
// socket of setns gives, if it gives one.
func (plan *Plan) setnsPIDs() error {
	return plan.givenNamespaces(func(fds []int) error {
		for _, fd := range fds {
			if !isPIDs(fd) {
				continue
			}
			if err := unix.Setns(fd, unix.CLONE_NEWPID); err != nil {
				return fmt.Errorf("enter %s: %w", nsName(fd), err)
			}
		}
		return nil
	})
}

// givenNamespaces passes on what the socket of setns gives and is not ours yet.
func (plan *Plan) givenNamespaces(enter func(fds []int) error) error {
	path := plan.Isolation.Setns
	if path == "" {
		return nil
	}
	fds, err := askNamespaces(path)
	defer closeAll(fds)
	var own map[uint64]bool
	if err == nil {
		own, err = ownNamespaces()
	}
	var others []int
	for _, fd := range fds {
		inode, ierr := nsInode(fd)
		if err = errors.Join(err, ierr); ierr == nil && !own[inode] {
			others = append(others, fd)
		}
	}
	if err == nil {
		err = enter(others)
	}
	if err != nil {
		return fmt.Errorf("setns %s: %w", path, err)
	}
	return nil
}

func isPIDs(fd int) bool {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	return err == nil && kind == unix.CLONE_NEWPID
}

// askNamespaces connects to a socket of setns and gets the descriptors.
func askNamespaces(path string) ([]int, error) {
	sock, err := dialNamespaces(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(sock)
	timeout := unix.NsecToTimeval(int64(setnsTime))
	if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, err
	}
	b, oob := make([]byte, len(setnsGreeting)+4), make([]byte, unix.CmsgSpace(4*maxServed))
	n, oobn, flags, _, err := unix.Recvmsg(sock, b, oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) { // with a timeout the kernel never restarts it (signal(7)), and Go's runtime signals its threads
		n, oobn, flags, _, err = unix.Recvmsg(sock, b, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	fds := allDescriptors(oob[:oobn])
	if len(fds) == 0 || flags&unix.MSG_CTRUNC != 0 || n < len(setnsGreeting) || string(b[:len(setnsGreeting)]) != setnsGreeting {
		closeAll(fds)
		return nil, errors.New("its answer has no namespaces: is it a setns-socket?")
	}
	return fds, nil
}

// dialNamespaces waits for a server that is not there yet.
func dialNamespaces(path string) (int, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	deadline := time.Now().Add(setnsTime)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err = unix.Connect(sock, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return sock, nil
		}
		gone := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)
		if !gone || time.Now().After(deadline) {
			return -1, errors.Join(err, unix.Close(sock))
		}
		time.Sleep(wait) // nothing tells when a socket appears
	}
}

// allDescriptors are all that came along with a message.
func allDescriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ownNamespaces are the inodes of this thread's.
func ownNamespaces() (map[uint64]bool, error) {
	const dir = "/proc/thread-self/ns/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[uint64]bool{}
	for _, e := range entries {
		if st, err := os.Stat(dir + e.Name()); err == nil { // there is none for children that cannot be
			own[st.Sys().(*syscall.Stat_t).Ino] = true
		}
	}
	return own, nil
}

func nsInode(fd int) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return 0, errors.New("its answer has a descriptor that is no namespace")
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// nsName is how the kernel calls it, such as net:[4026531840].
func nsName(fd int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		return "a namespace"
	}
	return name
}
