package netns

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Do runs fn on a thread that is in the network namespace ns, and returns fn's
// error. The calling goroutine waits and its own thread never changes.
//
// A panic of fn goes on in the caller, and so does [runtime.Goexit] (which is
// how a test's Fatal leaves). If the thread cannot go back to its namespace,
// that error is joined to fn's and the thread is given up.
func Do(ns netns.NsHandle, fn func() error) error {
	return visit(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	}, fn)
}

// New makes a fresh network namespace, in which even the loopback device is
// down. The caller's thread does not enter it. The namespace lives as long as
// the handle, which the caller closes, or anything else in it: a process, a
// mount, a device's descriptor.
func New() (netns.NsHandle, error) {
	made := netns.None()
	err := visit(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return nil
	}, func() (err error) {
		made, err = current()
		return err
	})
	if err != nil {
		if made.IsOpen() {
			err = errors.Join(err, made.Close())
		}
		return netns.None(), err
	}
	return made, nil
}

// Inode is the number by which the kernel knows the namespace, the one in
// "net:[4026531840]" of /proc/PID/ns/net. It is unique only while the namespace
// lives.
func Inode(ns netns.NsHandle) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return st.Ino, nil
}

// Own is the Inode of the calling thread's namespace: of the process, outside of Do.
func Own() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("our own network namespace: %w", err)
	}
	return st.Ino, nil
}

// visit calls enter, then fn, on a locked thread, and takes the thread back to
// its first namespace. An enter that fails has not moved it.
func visit(enter, fn func() error) error {
	var out outcome
	onThread(func() {
		home, err := current()
		if err != nil {
			out.err = err
			runtime.UnlockOSThread()
			return
		}
		defer home.Close()
		if out.err = enter(); out.err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer func() { // deferred, since fn may leave by Goexit
			if err := netns.Set(home); err != nil {
				out.err = errors.Join(out.err, fmt.Errorf("go back to the first network namespace: %w", err))
				return // still locked, so the thread ends with its goroutine
			}
			runtime.UnlockOSThread()
		}()
		out.run(fn)
	})
	return out.resume()
}

// onThread runs fn in a goroutine of its own, locked to its thread, and waits
// for it. The thread ends with the goroutine unless fn unlocks it.
//
// It is never the first thread of the process: that one's namespace is what
// others take for the process's (/proc/PID/ns/net, a pidfd), and it cannot end.
func onThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(fn) // while we hold the first thread, this gets another
			runtime.UnlockOSThread()
			return
		}
		fn()
	}()
	<-done
}

// current opens the namespace of the calling thread. /proc/thread-self is right
// in every pid namespace, our own idea of our pid is not.
func current() (netns.NsHandle, error) {
	ns, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return netns.None(), fmt.Errorf("open network namespace of the thread: %w", err)
	}
	return ns, nil
}
