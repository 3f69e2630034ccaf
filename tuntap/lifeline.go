package tuntap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Lifeline is the emperor's end of a peer: the connection that its device was
// handed over on.
type Lifeline struct {
	conn *net.UnixConn
	lost chan struct{} // closed when watch has ended
	once sync.Once
	err  error // of Close

	asking   sync.Mutex    // one question at a time; guards what follows
	patience time.Duration // with the router: for a question, and for its answer
	late     int           // questions whose answers have not been taken from answer
	rest     []byte        // of the last question: the router has a part of it, and not this

	owed   atomic.Int32 // questions that the router has not answered
	answer chan error   // to those that were asked, in their order
	broken error        // what the router sent that is no answer; to be read when lost is closed
}

// mostLate is how many questions to a router that is held up may go unanswered.
const mostLate = 16

const goodbyeTimeout = time.Second

// ErrLineLost says that the router ended the connection.
var ErrLineLost = errors.New("the router ended the life line")

// ErrLineBroken says that the router runs on and sent on the life line what nobody
// asked for, so that no answer of its can be believed.
var ErrLineBroken = errors.New("the life line is broken; restart the vassal, and if that does not help, the router")

var errUnasked = errors.New("the router sent an answer without a question")

func newLifeline(conn *net.UnixConn) *Lifeline {
	l := &Lifeline{conn: conn, lost: make(chan struct{}), patience: handoverTimeout, answer: make(chan error, mostLate)}
	go l.watch() // ends with the connection; Close waits for it
	return l
}

// watch takes the router's answers until the end of the connection, or until
// something comes that is none.
func (l *Lifeline) watch() {
	defer close(l.lost)
	for {
		answer, err := readAnswer(l.conn)
		switch {
		case errors.Is(err, errNotAnswer):
			l.broken = err
			return
		case err != nil:
			return // why it ended does not matter
		case l.owed.Add(-1) < 0:
			l.broken = errUnasked
			return
		}
		l.answer <- answer // there is room: no more than mostLate are asked for
	}
}

// skip takes the answers that came too late.
func (l *Lifeline) skip() {
	for l.late > 0 {
		select {
		case <-l.answer: //nolint:errcheck // who asked has been told that nobody knows
			l.late--
		default:
			return
		}
	}
}

// ask sends frames and waits for the answer. A router that is held up may answer
// later: that answer is skipped.
func (l *Lifeline) ask(frames []byte) error {
	select {
	case <-l.lost:
		return l.ended()
	default:
	}
	l.skip()
	if l.late == mostLate {
		return silent("it owes %d answers", l.late)
	}
	if err := l.send(frames); err != nil {
		return err
	}
	late := time.After(l.patience)
	for {
		select {
		case answer := <-l.answer:
			if l.late--; l.late == 0 {
				return answer
			}
		case <-l.lost:
			return l.ended()
		case <-late:
			return silent("nothing came within %v", l.patience)
		}
	}
}

// send writes a question. If the router does not take all of it in time, the rest
// goes before whatever comes next, so that no frame is torn: it will be answered,
// and is counted.
func (l *Lifeline) send(frames []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.patience)); err != nil {
		return l.unsent(err)
	}
	if err := l.sendRest(); err != nil {
		return l.unsent(err)
	}
	l.late++
	l.owed.Add(1)
	n, err := l.conn.Write(frames)
	switch {
	case err != nil && n == 0:
		l.late--
		l.owed.Add(-1)
	case err != nil:
		l.rest = append([]byte(nil), frames[n:]...)
	}
	return l.unsent(err)
}

// sendRest writes what is left of the question before.
func (l *Lifeline) sendRest() error {
	if len(l.rest) == 0 {
		return nil
	}
	n, err := l.conn.Write(l.rest)
	l.rest = l.rest[n:]
	return err
}

// unsent tells a router that does not read from one that has ended.
func (l *Lifeline) unsent(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return silent("it took nothing more for %v", l.patience)
	}
	return fmt.Errorf("%w: %w", ErrLineLost, err)
}

// silent is the error of a router that is held up.
func silent(why string, args ...any) error {
	return fmt.Errorf("%w: %s (it is asked again; if this stays so, kill it, and the next router gets the rules)", ErrNoAnswer, fmt.Sprintf(why, args...))
}

// ended says why the line is lost. A router that runs on with a broken line has
// the device still, and gets no other rules by it.
func (l *Lifeline) ended() error {
	if l.broken != nil {
		return fmt.Errorf("%w: %w", ErrLineBroken, l.broken)
	}
	return ErrLineLost
}

// Lost is closed when the router ended the connection (it died, or the device is
// gone), or broke it.
func (l *Lifeline) Lost() <-chan struct{} { return l.lost }

// Close says goodbye, so that the router drops the peer and frees its
// addresses before Close returns. (A connection that merely ends means that
// the emperor died, and the router keeps the peer, as long as it has its device.)
func (l *Lifeline) Close() error {
	l.once.Do(func() {
		var frame [frameHeader]byte
		putHeader(frame[:], kindGoodbye, 0)
		l.asking.Lock()
		if err := l.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)); err == nil && l.sendRest() == nil {
			_, _ = l.conn.Write(frame[:]) // a router that is gone needs no goodbye
		}
		l.asking.Unlock()
		select {
		case <-l.lost:
		case <-time.After(goodbyeTimeout):
			l.err = errors.New("router did not take leave of the device in time")
		}
		l.err = errors.Join(l.err, l.conn.Close())
		<-l.lost
	})
	return l.err
}
