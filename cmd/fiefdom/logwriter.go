package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// logWriter writes the emperor's log beside everybody who logs: a terminal
// that is stopped or a pipe that nobody reads must not stop the emperor. What
// does not fit into the queue is lost, and counted in the log.
type logWriter struct {
	mu    sync.Mutex
	lines chan []byte
	lost  int
	done  chan struct{}
}

const (
	logQueue = 4096        // writes, a line each
	logFlush = time.Second // for the last lines at the end
)

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{lines: make(chan []byte, logQueue), done: make(chan struct{})}
	go l.write(w)
	return l
}

// Write queues b, which is one line or more, whole. It never blocks and never fails.
func (l *logWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 && len(l.lines) < cap(l.lines)/2 {
		l.lines <- fmt.Appendf(nil, "fiefdom: %d log lines were lost, nobody read them\n", l.lost)
		l.lost = 0
	}
	select {
	case l.lines <- append([]byte(nil), b...):
	default:
		l.lost++
	}
	return len(b), nil
}

func (l *logWriter) write(w io.Writer) {
	defer close(l.done)
	for line := range l.lines {
		_, _ = w.Write(line) // there is nowhere to complain
	}
}

// close writes what is queued, for a moment. Nothing may be written after it.
func (l *logWriter) close() {
	close(l.lines)
	select {
	case <-l.done:
	case <-time.After(logFlush):
	}
}
