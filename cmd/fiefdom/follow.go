package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"fiefdom/emperor"
)

// following goes on with what an emperor tells when another one takes its place.
type following struct {
	client   *emperor.Client
	errs     io.Writer
	patience time.Duration // without an emperor
}

// successorPatience is enough for a service manager to end an emperor with its
// vassals and to start the next.
const successorPatience = 2 * time.Minute

// followPace is how often it is looked whether the next emperor is there.
const followPace = 100 * time.Millisecond

// run calls stream, and again for each emperor that follows, until it ends for
// another reason than its emperor's end. It has to go on where it was. With a vassal
// the next emperor counts only once it has that.
func (f *following) run(ctx context.Context, vassal string, stream func() error) error {
	self, err := f.client.Self(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		if err := stream(); !hasHungUp(err) && (first || !hasGone(err)) || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(f.errs, "fiefdom: emperor %s has ended, or becomes another program; waiting for the next\n", self.Instance)
		if self, err = f.await(ctx, vassal, self); err != nil {
			return err
		}
		fmt.Fprintf(f.errs, "fiefdom: emperor %s is there again, with pid %d\n", self.Instance, self.PID)
	}
}

// await waits for the emperor after before.
func (f *following) await(ctx context.Context, vassal string, before emperor.Self) (emperor.Self, error) {
	waiting, stop := context.WithTimeout(ctx, f.patience)
	defer stop()
	for {
		self, err := f.client.Self(waiting)
		switch {
		case err == nil && self.Began.Equal(before.Began):
			if !self.Ending {
				return self, errors.New("the emperor hung up: you read too slowly")
			}
		case err == nil:
			if vassal == "" {
				return self, nil
			}
			var s emperor.Status
			if s, err = f.client.Get(waiting, vassal); err == nil && s.Output != nil {
				return self, nil
			}
		}
		select {
		case <-time.After(followPace):
		case <-waiting.Done():
			if ctx.Err() != nil {
				return self, ctx.Err()
			}
			return self, errors.Join(fmt.Errorf("waited %v for the next emperor", f.patience), err)
		}
	}
}

// hasHungUp says whether an answer broke off.
func hasHungUp(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// hasGone says whether nobody was there to answer: an emperor who was, a moment
// ago, has become another.
func hasGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF)
}
