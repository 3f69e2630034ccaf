package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// QueueSize is how many bytes wait for a slow log, at most.
const QueueSize = 256 << 10

const (
	queuePart  = 64 << 10 // bytes written at once: queues that share a log take turns
	queueRetry = time.Second
)

// Lost is what could not be written.
type Lost struct {
	Bytes uint64 `json:"bytes"`
	Lines uint64 `json:"lines"` // ends of lines among the bytes
}

func (l *Lost) add(b []byte) {
	l.Bytes += uint64(len(b))
	l.Lines += uint64(bytes.Count(b, []byte{'\n'}))
}

func (l Lost) and(m Lost) Lost { return Lost{l.Bytes + m.Bytes, l.Lines + m.Lines} }

// Notice is the line about a loss in a log that has one writer.
func Notice(l Lost, why string) string {
	return fmt.Sprintf("fiefdom: %d bytes with %d ends of lines were lost here: %s", l.Bytes, l.Lines, why)
}

// Queue takes what is written at once and writes it on in its own time. What
// does not fit, and what cannot be written, is lost and counted; when
// writing goes on, a line says so. No goroutine waits while nothing is to be
// done.
type Queue struct {
	notice func(lost Lost, why string) string // the line, without its end

	mu      sync.Mutex
	to      io.Writer
	waits   []byte
	spare   []byte        // for the next that wait
	before  Lost          // was lost before what waits, and has to be told
	behind  Lost          // the same, after what waits
	total   Lost          // ever
	why     string        // it was lost
	running chan struct{} // closed when the goroutine ends; nil: there is none
	retry   *time.Timer   // after a failure
	poked   bool
	closed  bool
	retired []func()

	midline bool // what was written last has no line end; the goroutine's own
}

// errFull is why what does not fit is lost.
const errFull = "it came faster than it could be written"

// NewQueue writes to w, which may block. notice makes the line about a loss.
func NewQueue(w io.Writer, notice func(lost Lost, why string) string) *Queue {
	return &Queue{to: w, notice: notice}
}

// Write never blocks and never fails.
func (q *Queue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.behind.Bytes > 0 || len(q.waits)+len(b) > QueueSize {
		if q.retry == nil {
			q.why = errFull
		}
		q.behind.add(b)
		q.total.add(b)
	} else {
		q.waits = append(q.waits, b...)
	}
	q.run()
	return len(b), nil
}

// Poke has the log look whether somebody has asked it for something.
func (q *Queue) Poke() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.poked = true
	q.run()
}

// SetTo goes on with another log. retired is called once nobody uses the one
// before any more, by the queue's goroutine: it may block.
func (q *Queue) SetTo(w io.Writer, retired func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.to = w
	q.retired = append(q.retired, retired)
	q.run()
}

// Lost is all that was ever lost, and why it was lately.
func (q *Queue) Lost() (Lost, string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total, q.why
}

// Settle waits until all that came before has been written or is lost, until
// most is over at the longest.
func (q *Queue) Settle(most time.Duration) {
	q.mu.Lock()
	running := q.running
	q.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running:
	case <-time.After(most):
	}
}

// Close writes what waits, as long as it takes until most is over. It may be
// called more than once. What comes after it is lost.
func (q *Queue) Close(most time.Duration) error {
	q.mu.Lock()
	q.closed, q.poked = true, true
	if q.retry != nil {
		q.retry.Stop()
		q.retry = nil
	}
	q.run()
	running := q.running
	q.mu.Unlock()
	select {
	case <-running:
		return nil
	case <-time.After(most):
		return errors.New("the log takes nothing")
	}
}

// run starts the goroutine that writes. The caller has q.mu.
func (q *Queue) run() {
	if q.running == nil && q.retry == nil {
		q.running = make(chan struct{})
		go q.drain() // ends when nothing waits; Close waits for it
	}
}

func (q *Queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer func() { close(q.running); q.running = nil }()
	for len(q.waits) > 0 || q.before.Bytes+q.behind.Bytes > 0 || len(q.retired) > 0 || q.poked {
		if !q.round() {
			q.retry = time.AfterFunc(queueRetry, q.again)
			return
		}
	}
	q.waits, q.spare = nil, nil // a vassal that is quiet costs no memory
}

// round writes what waits, and says whether to go on. The caller has q.mu,
// which is free meanwhile.
func (q *Queue) round() bool {
	to, batch, lost, behind, why, retired := q.to, q.waits, q.before, q.behind, q.why, q.retired
	q.waits, q.before, q.behind, q.retired, q.poked = q.spare[:0], Lost{}, Lost{}, nil, false
	q.mu.Unlock()
	for _, f := range retired {
		f()
	}
	rest, err := batch, q.tell(to, lost, why)
	if err == nil {
		lost = Lost{}
		rest, err = q.put(to, batch)
	}
	q.mu.Lock()
	var more Lost
	more.add(rest)
	q.total = q.total.and(more)
	q.before = lost.and(more).and(behind)
	q.spare = batch[:0]
	if err == nil {
		return true
	}
	q.why = err.Error()
	if q.closed { // it was the last attempt
		q.before, q.behind = Lost{}, Lost{}
	}
	return q.closed
}

// again tries after a failure.
func (q *Queue) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.retry != nil {
		q.retry = nil
		q.run()
	}
}

// tell writes the line about a loss.
func (q *Queue) tell(to io.Writer, lost Lost, why string) error {
	if lost.Bytes == 0 {
		return nil
	}
	line := q.notice(lost, why) + "\n"
	if q.midline {
		line = "\n" + line
	}
	_, err := q.put(to, []byte(line))
	return err
}

// put writes b, or returns what it could not write.
func (q *Queue) put(to io.Writer, b []byte) ([]byte, error) {
	if len(b) == 0 {
		_, err := to.Write(nil) // it may have been asked for something
		return nil, err
	}
	for len(b) > 0 {
		part := b
		if len(part) > queuePart {
			part = part[:queuePart]
			if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
				part = part[:i+1]
			}
		}
		n, err := to.Write(part)
		if n > 0 {
			q.midline = b[n-1] != '\n'
		}
		b = b[n:]
		if err != nil {
			return b, err
		}
	}
	return nil, nil
}
