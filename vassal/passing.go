package vassal

import (
	"errors"

	"golang.org/x/sys/unix"

	"fiefdom/tuntap"
)

// Passing says that a start failed for a want that is not the vassal's, and that
// passes: the emperor or the machine is out of descriptors, or the router takes
// no device now.
func Passing(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, tuntap.ErrNoAnswer)
}
