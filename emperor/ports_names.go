package emperor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// namesPort is where the responder has sockets, at addresses and devices of its
// own: one for all addresses of the host may be beside them.
const namesPort = 53

// shareNames lets a socket that holds a published port be beside the responder's,
// if nobody else is in its way: as one user's sockets may be who both say so.
func shareNames(fd int, h hostPort) error {
	if h.Port != namesPort || !h.Addr.IsUnspecified() {
		return nil
	}
	sockets, err := portSockets(h.Proto)
	if err != nil {
		return err
	}
	own := ownSockets()
	for _, s := range sockets {
		if s.inWayOf(h) && !own[s.inode] {
			return nil // the bind will say so
		}
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// ownSockets are the inodes of the sockets that this process has open.
func ownSockets() map[uint32]bool {
	own := map[uint32]bool{}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return own
	}
	for _, f := range files {
		to, err := os.Readlink("/proc/self/fd/" + f.Name())
		var inode uint32
		if _, serr := fmt.Sscanf(to, "socket:[%d]", &inode); err == nil && serr == nil {
			own[inode] = true
		}
	}
	return own
}
