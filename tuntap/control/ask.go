package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"fiefdom/tuntap"
)

// question is what the keeper asks the router; one field beside the ID is set.
type question struct {
	ID      uint64        `json:"id"`
	Explain *tuntap.Query `json:"explain,omitempty"`
	Drops   string        `json:"drops,omitempty"` // the vassal whose drops are asked for

	Capture *tuntap.CaptureQuery `json:"capture,omitempty"` // with one descriptor: the socket that takes the records
}

// answer is what the router says to a question.
type answer struct {
	ID          uint64              `json:"id"`
	Explanation *tuntap.Explanation `json:"explanation,omitempty"`
	Drops       []tuntap.PeerDrops  `json:"drops,omitempty"`
	Error       string              `json:"error,omitempty"` // it has no answer; why
}

// answer answers a question. The files that came with it are its own.
func (s *server) answer(q *question, files []*os.File) *answer {
	defer closeAll(files)
	a := &answer{ID: q.ID}
	var err error
	switch {
	case q.Capture != nil:
		err = s.capture(q.Capture, files)
	case q.Explain != nil:
		a.Explanation, err = s.explain(*q.Explain)
	case q.Drops != "":
		a.Drops = s.router.LastDrops(q.Drops)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// explain works on copies, so whatever goes wrong there is no reason for the
// router to end.
func (s *server) explain(q tuntap.Query) (e *tuntap.Explanation, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("explain", "err", p, "stack", string(debug.Stack()))
			err = errors.New("the router has no explanation for this packet; its log says more, please report it")
		}
	}()
	return s.router.Explain(q)
}

func (s *server) capture(q *tuntap.CaptureQuery, files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("a capture came with %d descriptors; want 1", len(files))
	}
	conn, err := net.FileConn(files[0])
	if err != nil {
		return err
	}
	return s.router.Capture(*q, conn)
}

var (
	errNoRouter = errors.New("the router is being started; try again")
	errEnded    = errors.New("the router ended")
	errStrange  = errors.New("the router answered something else") // the emperor trusts no router
)

// Explain asks the router what would become of a packet.
func (k *Keeper) Explain(ctx context.Context, q tuntap.Query) (*tuntap.Explanation, error) {
	a, err := k.put(ctx, question{Explain: &q})
	if err == nil && a.Explanation == nil {
		err = errStrange
	}
	if err != nil {
		return nil, err
	}
	return a.Explanation, nil
}

// LastDrops asks the router for the drops of a vassal's packets, by peer.
func (k *Keeper) LastDrops(ctx context.Context, vassal string) ([]tuntap.PeerDrops, error) {
	a, err := k.put(ctx, question{Drops: vassal})
	if err != nil {
		return nil, err
	}
	return a.Drops, nil
}

// Capture has the router write what becomes of a vassal's packets, as records of
// tuntap.ReadCapture, to the connection that it returns, until that is closed or
// the device is gone. It is the caller's.
func (k *Keeper) Capture(ctx context.Context, q tuntap.CaptureQuery) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs, file := os.NewFile(uintptr(fds[1]), "capture"), os.NewFile(uintptr(fds[0]), "capture")
	defer theirs.Close()
	defer file.Close()
	ours, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	if _, err := k.put(ctx, question{Capture: &q}, fds[1]); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// put asks a question; descriptors stay the caller's. An error is the router's,
// if it is no error of the way there.
func (k *Keeper) put(ctx context.Context, q question, fds ...int) (*answer, error) {
	r, err := k.ask(ctx, func(id uint64) order {
		q.ID = id
		return order{Ask: &q}
	}, fds...)
	switch {
	case err != nil:
		return nil, err
	case r.Answer == nil:
		return nil, errStrange
	case r.Answer.Error != "":
		return nil, errors.New(r.Answer.Error)
	}
	return r.Answer, nil
}

// counting is a snapshot that is asked for.
type counting struct {
	done     chan struct{}
	networks []tuntap.NetworkStats
	err      error
}

// Snapshot asks the router for its counters. Who asks while another does gets
// the same answer, which nobody may change.
func (k *Keeper) Snapshot(ctx context.Context) ([]tuntap.NetworkStats, error) {
	k.mu.Lock()
	t := k.counting
	first := t == nil
	if first {
		t = &counting{done: make(chan struct{})}
		k.counting = t
	}
	k.mu.Unlock()
	if !first {
		select {
		case <-t.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if t.err == nil {
			return t.networks, nil
		}
		return k.snapshot(ctx) // who asked may have given up
	}
	t.networks, t.err = k.snapshot(ctx)
	k.mu.Lock()
	k.counting = nil
	k.mu.Unlock()
	close(t.done)
	return t.networks, t.err
}

func (k *Keeper) snapshot(ctx context.Context) ([]tuntap.NetworkStats, error) {
	r, err := k.ask(ctx, func(id uint64) order { return order{Snapshot: id} })
	if err == nil && r.Snapshot == nil {
		err = errStrange
	}
	if err != nil {
		return nil, err
	}
	return r.Snapshot.Networks, nil
}

// ask sends an order that is answered and waits for the answer. what makes the
// order, with its number.
func (k *Keeper) ask(ctx context.Context, what func(id uint64) order, fds ...int) (*report, error) {
	k.mu.Lock()
	w := k.wire
	k.asked++
	id := k.asked
	answer := make(chan *report, 1)
	if w != nil {
		k.answers[id] = answer
	}
	k.mu.Unlock()
	if w == nil {
		return nil, errNoRouter
	}
	forget := func() {
		k.mu.Lock()
		delete(k.answers, id)
		k.mu.Unlock()
	}
	if err := w.send(what(id), fds...); err != nil {
		forget()
		return nil, fmt.Errorf("ask the router: %w", err)
	}
	select {
	case r, ok := <-answer:
		if !ok {
			return nil, errEnded
		}
		return r, nil
	case <-ctx.Done():
		forget()
		return nil, fmt.Errorf("ask the router: %w", ctx.Err())
	}
}

// answered hands an answer to who asked, if he still waits.
func (k *Keeper) answered(id uint64, r *report) {
	k.mu.Lock()
	answer := k.answers[id]
	delete(k.answers, id)
	k.mu.Unlock()
	if answer != nil {
		answer <- r
	}
}
