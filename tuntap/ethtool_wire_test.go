package tuntap

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What can be switched on or off at a device (linux/ethtool.h).
const (
	setTxChecksum   = 0x17 // ETHTOOL_STXCSUM
	setSegmentation = 0x24 // ETHTOOL_SGSO: the device is given no packet that is to be cut
	setReceiveMerge = 0x2c // ETHTOOL_SGRO
)

// offloadsOff makes a device of this namespace one whose driver does nothing: no
// checksums, no cutting.
func offloadsOff(t *testing.T, name string) {
	t.Helper()
	ethtool(t, name, setTxChecksum, 0)
	ethtool(t, name, setSegmentation, 0)
}

func ethtool(t *testing.T, name string, command, on uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	value := [2]uint32{command, on} // struct ethtool_value
	var request struct {            // struct ifreq
		name  [unix.IFNAMSIZ]byte
		value unsafe.Pointer
		_     [16]byte
	}
	copy(request.name[:], name)
	request.value = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("set %#x of %s to %d: %v", command, name, on, errno)
	}
}
