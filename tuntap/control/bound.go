package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"fiefdom/internal/netns"
	"fiefdom/internal/unixsock"
)

// Bound says whether f is the socket of the network ("unix", "tcp", "udp4")
// that has the address: a listening one, but for UDP. That of a unix socket
// must be the file which is there now. What cannot be told is not.
func Bound(f *os.File, network, address string) bool {
	if f == nil {
		return false
	}
	return control(f, func(fd int) error {
		if network == "unix" {
			return boundFile(fd, address)
		}
		return boundAddress(fd, network, address)
	}) == nil
}

// UnixName is the path that a unix socket was bound to; empty: none.
func UnixName(f *os.File) (path string) {
	if f == nil {
		return ""
	}
	_ = control(f, func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if a, ok := sa.(*unix.SockaddrUnix); ok {
			path = a.Name
		}
		return err
	})
	return path
}

func boundFile(fd int, path string) error {
	if err := socketIs(fd, unix.AF_UNIX, unix.SOCK_STREAM, 1); err != nil {
		return err
	}
	file, err := unixsock.File(fd)
	if err != nil {
		return fmt.Errorf("its file: %w", err)
	}
	defer unix.Close(file)
	var its, there unix.Statx_t
	const flags = unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(file, "", flags|unix.AT_EMPTY_PATH, unix.STATX_INO, &its); err != nil {
		return err
	}
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_INO, &there); err != nil {
		return err
	}
	if its.Ino != there.Ino || its.Dev_major != there.Dev_major || its.Dev_minor != there.Dev_minor {
		return errors.New("another file is there")
	}
	return nil
}

func boundAddress(fd int, network, address string) error {
	kind, listens := unix.SOCK_STREAM, 1
	if network != "tcp" {
		kind, listens = unix.SOCK_DGRAM, 0
	}
	if err := socketIs(fd, 0, kind, listens); err != nil {
		return err
	}
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("its network namespace: %w", err)
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	own, err := netns.Own()
	if err := errors.Join(err, unix.Fstat(ns, &st)); err != nil {
		return err
	}
	if st.Ino != own {
		return errors.New("it is in another network namespace")
	}
	has, err := boundTo(fd)
	if err != nil {
		return err
	}
	want, err := net.ResolveTCPAddr("tcp", address) // one of UDP looks the same
	if err != nil {
		return err
	}
	every := want.IP == nil && has.Addr().IsUnspecified()
	if int(has.Port()) != want.Port || !every && has.Addr() != want.AddrPort().Addr().Unmap() {
		return fmt.Errorf("it has %s", has)
	}
	return nil
}

func boundTo(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), err
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), err
	}
	return netip.AddrPort{}, errors.Join(errors.New("it has no address"), err)
}

// socketIs checks a socket's family, if one is given, and its kind.
func socketIs(fd, family, kind, listens int) error {
	for option, want := range map[int]int{unix.SO_DOMAIN: family, unix.SO_TYPE: kind, unix.SO_ACCEPTCONN: listens} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err == nil && got != want && (option != unix.SO_DOMAIN || family != 0) {
			err = fmt.Errorf("socket option %d is %d, not %d", option, got, want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
