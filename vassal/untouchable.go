package vassal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Program is the file of our program, by which an emperor starts what lives shortly:
// the first stages in his vassals' jails, expanders, hooks. Tests whose emperor is
// built for them have the ordinary build here.
var Program = "/proc/self/exe"

// selfFD is the lowest number for the descriptor of our program: above those
// that a child is given, which are put in place before it is executed.
const selfFD = 64

// untouchable is a descriptor of our program by which nobody can write it,
// whatever rights he has to the file: a stage that goes into a jail where others
// are already shows them its program (/proc/PID/exe), and they may be its owner
// (CVE-2019-5736). It stays open for the emperor's life.
var untouchable = sync.OnceValues(func() (int, error) {
	fd, err := readOnlySelf()
	if err != nil {
		// Our mount is another namespace's, or the kernel is before 5.12.
		var copied error
		if fd, copied = sealedSelf(); copied != nil {
			return -1, fmt.Errorf("protect our program from the jail: %w", errors.Join(err, copied))
		}
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, selfFD)
	return high, errors.Join(err, unix.Close(fd))
})

// ProtectProgram does what the first stage that joins a jail would: from then
// on a descriptor more is open.
func ProtectProgram() error {
	_, err := untouchable()
	return err
}

// readOnlySelf opens our program by a mount of its own, which is read-only and
// nowhere attached.
func readOnlySelf() (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, Program, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone its mount: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return -1, errors.Join(fmt.Errorf("read-only mount: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// sealedSelf copies our program into memory that cannot be written any more.
func sealedSelf() (int, error) {
	in, err := os.Open(Program)
	if err != nil {
		return -1, err
	}
	defer in.Close()
	fd, err := unix.MemfdCreate("fiefdom", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memory for a copy: %w", err)
	}
	out := os.NewFile(uintptr(fd), "fiefdom")
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return -1, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(out.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return -1, fmt.Errorf("seal the copy: %w", err)
	}
	// Read-only: a descriptor for writing keeps a file from being executed.
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", out.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
