package tuntap

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	tunPath  = "/dev/net/tun"
	tunFlags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
)

// Device is an open tun device: a descriptor that gives and takes one raw IP
// packet a read or write, after a header that says what the kernel left undone. It holds the bare descriptor, not an os.File: one of
// those is in the runtime's poller, and a process that merely keeps the device
// would wake up for each of its packets.
type Device struct {
	Name string

	close sync.Once
	fd    int
	err   error
}

// OpenDevice attaches to the tun device name in the calling thread's network
// namespace and creates it if need be: IFF_TUN|IFF_NO_PI|IFF_VNET_HDR, non-blocking,
// close-on-exec (Documentation/networking/tuntap.rst). A device that was
// created goes when the last descriptor of it is closed.
func OpenDevice(name string) (*Device, error) { return openDevice(name, tunFlags) }

// OpenPlainDevice is OpenDevice for one whose packets have no header: the kernel
// does checksums and segmentation. Only a bridge takes such a device.
func OpenPlainDevice(name string) (*Device, error) {
	return openDevice(name, tunFlags&^unix.IFF_VNET_HDR)
}

func openDevice(name string, flags uint16) (*Device, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("open tun device %q: a name has 1 to 15 bytes", name)
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open tun device %q: %w", name, explainOpen(err))
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("attach tun device %q: %w", name, explainAttach(err))
	}
	return &Device{Name: ifr.Name(), fd: fd}, nil
}

// NewDevice makes a Device of an open file, for example one that was kept
// across a restart. The file is closed; the Device has a duplicate.
func NewDevice(name string, f *os.File) (*Device, error) {
	fd, err := takeFile(f)
	if err != nil {
		return nil, fmt.Errorf("take over device %q: %w", name, err)
	}
	return &Device{Name: name, fd: fd}, nil
}

// FD returns the descriptor, which stays the Device's. It is non-blocking and
// must stay so: the router shares the open file.
func (d *Device) FD() int { return d.fd }

// Close closes the descriptor. Others that share the device go on.
func (d *Device) Close() error {
	d.close.Do(func() { d.err = unix.Close(d.fd) })
	return d.err
}

func explainOpen(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: %w: is the module there? (modprobe tun)", tunPath, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w: this user (or the container's device policy) may not open it", tunPath, err)
	}
	return fmt.Errorf("%s: %w", tunPath, err)
}

func explainAttach(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another process has it open; stop that one or choose another name", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it needs CAP_NET_ADMIN in this network namespace", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: the name is not valid, or an interface of this name is no tun device; choose another name", err)
	}
	return err
}

// prepareTun checks that fd is a tun device of our kind and sets what the
// router relies on, whoever opened it. It needs no privilege. cutsUDP: the
// kernel knows large UDP packets (Linux 6.2), and may be given some.
func prepareTun(fd int) (cutsUDP bool, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return false, err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return false, fmt.Errorf("descriptor is no attached tun device: %w", err)
	}
	const look = unix.IFF_TUN | unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if flags := ifr.Uint16(); flags&look != tunFlags {
		return false, fmt.Errorf("device %q has flags %#x; want a tun with a vnet header and without packet information", ifr.Name(), flags)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetLen); err != nil {
		return false, fmt.Errorf("device %q: length of the vnet header: %w", ifr.Name(), err)
	}
	err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadsAll)
	cutsUDP = err == nil
	if errors.Is(err, unix.EINVAL) {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadsOld)
	}
	if err != nil {
		return false, fmt.Errorf("device %q: offloads: %w", ifr.Name(), err)
	}
	return cutsUDP, nil
}

// takeFile returns a non-blocking, close-on-exec duplicate of f's descriptor
// and closes f. The open file, and with it the non-blocking flag, is shared
// with whoever else has it.
func takeFile(f *os.File) (int, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// takeOptional is takeFile for a file that may be nil: then there is none, -1.
func takeOptional(f *os.File) (int, error) {
	if f == nil {
		return -1, nil
	}
	return takeFile(f)
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
