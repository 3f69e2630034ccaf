package unixsock

import "golang.org/x/sys/unix"

// siocUnixFile is unix_open_file in net/unix/af_unix.c.
const siocUnixFile = 0x89E0

// File is the file that a socket is bound to, whatever is at its path by now: an
// O_PATH descriptor, which is the caller's.
func File(socket int) (int, error) { return unix.IoctlRetInt(socket, siocUnixFile) }
