package tuntap

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by a Router's methods when it has ended.
var ErrClosed = errors.New("router has ended")

// mailbox carries calls from other goroutines to a shard and wakes it. They run
// between drains: then the shard holds nothing of what it saw before.
type mailbox struct {
	fd int // an eventfd, in the shard's epoll set

	mu    sync.Mutex
	state mailboxState
	calls []call
}

type call struct {
	fn   func() error
	done chan<- error // nil: nobody waits
}

type mailboxState uint8

const (
	notRunning mailboxState = iota
	running
	ended
)

func newMailbox() (*mailbox, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a shard's eventfd: %w", err)
	}
	return &mailbox{fd: fd}, nil
}

// do runs fn on the shard and returns its error; before the shard runs, at once.
func (m *mailbox) do(fn func() error) error {
	m.mu.Lock()
	switch m.state {
	case notRunning:
		defer m.mu.Unlock()
		return fn()
	case ended:
		m.mu.Unlock()
		return ErrClosed
	}
	done := make(chan error, 1)
	m.calls = append(m.calls, call{fn, done})
	m.wake()
	m.mu.Unlock()
	return <-done
}

// post has fn run on the shard, later, and does not wait. It may be called on
// any shard.
func (m *mailbox) post(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == ended {
		return
	}
	m.calls = append(m.calls, call{fn: func() error { fn(); return nil }})
	m.wake()
}

// poke wakes the shard.
func (m *mailbox) poke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != ended {
		m.wake()
	}
}

// wake is called with mu held, which keeps the descriptor open.
func (m *mailbox) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(m.fd, one[:]) // EAGAIN: it is awake already
}

// open lets calls go to the shard from now on.
func (m *mailbox) open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != notRunning {
		return errors.New("router runs already, or has ended")
	}
	m.state = running
	return nil
}

// run runs what came and reports whether anything did. Called on the shard,
// when the eventfd is readable.
func (m *mailbox) run() bool {
	var n [8]byte
	_, _ = unix.Read(m.fd, n[:])
	m.mu.Lock()
	calls := m.calls
	m.calls = nil
	m.mu.Unlock()
	for _, c := range calls {
		err := c.fn()
		if c.done != nil {
			c.done <- err
		}
	}
	return len(calls) > 0
}

// close ends it; calls that wait get ErrClosed.
func (m *mailbox) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = ended
	for _, c := range m.calls {
		if c.done != nil {
			c.done <- ErrClosed
		}
	}
	m.calls = nil
	return unix.Close(m.fd)
}
