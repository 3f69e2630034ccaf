package tuntap

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Attached says which device f is an open file of: its name, and the inode of
// the network namespace that it is in. Any other file is an error; so is a
// device that is gone. It needs CAP_NET_ADMIN over that namespace.
func Attached(f *os.File) (name string, namespace uint64, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return "", 0, err
	}
	cerr := raw.Control(func(fd uintptr) { name, namespace, err = attached(int(fd)) })
	if cerr != nil {
		err = cerr
	}
	if err != nil {
		return "", 0, fmt.Errorf("look at a device: %w", err)
	}
	return name, namespace, nil
}

func attached(fd int) (name string, namespace uint64, err error) {
	// Whose file it is shows without asking it: a file system may let one wait.
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return "", 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev_major != tunMajor || st.Rdev_minor != tunMinor {
		return "", 0, fmt.Errorf("the descriptor is none of %s", tunPath)
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return "", 0, err
	}
	ns, err := unix.IoctlRetInt(fd, unix.TUNGETDEVNETNS)
	if err != nil {
		return "", 0, fmt.Errorf("namespace of device %q: %w", ifr.Name(), err)
	}
	defer unix.Close(ns)
	var in unix.Stat_t
	if err := unix.Fstat(ns, &in); err != nil {
		return "", 0, err
	}
	return ifr.Name(), in.Ino, nil
}

// The device number of /dev/net/tun (Documentation/networking/tuntap.rst).
const tunMajor, tunMinor = 10, 200
