package tuntap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNoAnswer says that a router did not answer to a hand-over, or not yet to other
// rules: it has no descriptors left, is held up, or died just now.
var ErrNoAnswer = errors.New("the router does not answer; is it out of descriptors (ulimit -n)?")

// unanswered tells the router's silence from what it has against a device.
func unanswered(err error) error {
	silence := []error{os.ErrDeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE}
	if slices.ContainsFunc(silence, func(s error) bool { return errors.Is(err, s) }) {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return err
}
