package vassal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fifoInterval is the time between two looks at a FIFO that nobody reads yet.
const fifoInterval = 100 * time.Millisecond

// fifoWriter is an action "FIFO TEXT". It never waits for a reader as open(2)
// does: without one there is nothing to tell, or, spinning, it comes back.
func fifoWriter(spinning bool) action {
	return func(ctx context.Context, args string, _ io.Writer) error {
		name, text, ok := strings.Cut(args, " ")
		if !ok {
			return fmt.Errorf("want FIFO TEXT, got %q", args)
		}
		tick := time.NewTicker(fifoInterval)
		defer tick.Stop()
		for {
			f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
			unread := errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
			switch {
			case err == nil:
				_, err = f.WriteString(text)
				return errors.Join(err, f.Close())
			case unread && !spinning:
				return nil
			case !unread && (!spinning || !errors.Is(err, unix.ENOENT)):
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("nobody reads %s: %w", name, ctx.Err())
			}
		}
	}
}
