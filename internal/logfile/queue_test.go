package logfile

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// sink is a log of a test. Each write waits for a turn, if there are turns.
type sink struct {
	turns chan struct{}

	mu   sync.Mutex
	text strings.Builder
	room int // bytes that it takes; less than 0: any
	fail error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.turns != nil {
		<-s.turns
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room >= 0 && len(b) > s.room {
		n, _ := s.text.Write(b[:s.room])
		s.room = 0
		return n, s.fail
	}
	if s.room >= 0 {
		s.room -= len(b)
	}
	return s.text.Write(b)
}

func (s *sink) set(room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = room
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func notice(l Lost, why string) string {
	return fmt.Sprintf("LOST %d bytes %d lines: %s", l.Bytes, l.Lines, why)
}

func put(t *testing.T, q *Queue, text string) {
	t.Helper()
	if n, err := q.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

func shut(t *testing.T, q *Queue) {
	t.Helper()
	if err := q.Close(20 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestQueueWritesInOrder(t *testing.T) {
	nettest.NoLeaks(t)
	s := &sink{room: -1}
	q := NewQueue(s, notice)
	var want strings.Builder
	for i := range 10_000 {
		line := fmt.Sprintln("line", i)
		want.WriteString(line)
		put(t, q, line)
		if i%100 == 0 {
			nettest.Eventually(t, 20*time.Second, "all is written", func() bool { return s.String() == want.String() })
		}
	}
	shut(t, q)
	if s.String() != want.String() {
		t.Error("something else was written")
	}
	if l, _ := q.Lost(); l != (Lost{}) {
		t.Errorf("lost %+v", l)
	}
}

// Every byte is either written or counted, wherever it was lost, and the log
// says in the right place how many were.
func TestQueueCountsWhatASlowLogLoses(t *testing.T) {
	nettest.NoLeaks(t)
	s := &sink{room: -1, turns: make(chan struct{})}
	q := NewQueue(s, notice)
	const line = "0123456789abcde\n"
	put(t, q, "first\n")
	s.turns <- struct{}{}
	nettest.Eventually(t, 20*time.Second, "the first is written", func() bool { return s.String() == "first\n" })
	const more = 1000
	put(t, q, line) // is being written, until there is a turn
	nettest.Eventually(t, 20*time.Second, "the second is under way", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.running != nil && len(q.waits) == 0
	})
	for range QueueSize/len(line) + more {
		put(t, q, line)
	}
	if l, why := q.Lost(); l != (Lost{more * uint64(len(line)), more}) || why != errFull {
		t.Errorf("lost %+v, %s", l, why)
	}
	close(s.turns)
	nettest.Eventually(t, 20*time.Second, "the loss is told", func() bool { return strings.HasSuffix(s.String(), errFull+"\n") })
	put(t, q, "last\n")
	shut(t, q)
	want := "first\n" + strings.Repeat(line, QueueSize/len(line)+1) + notice(Lost{more * uint64(len(line)), more}, errFull) + "\nlast\n"
	if s.String() != want {
		t.Errorf("%d bytes are written, want %d", len(s.String()), len(want))
	}
}

func TestQueueCountsWhatAFullDiskLoses(t *testing.T) {
	nettest.NoLeaks(t)
	s := &sink{room: 10, fail: errors.New("no space left on device")}
	q := NewQueue(s, notice)
	put(t, q, "one\n")
	put(t, q, "two\nthree\n")
	nettest.Eventually(t, 20*time.Second, "something is lost", func() bool { l, _ := q.Lost(); return l.Bytes > 0 })
	lost, why := q.Lost()
	if lost != (Lost{4, 1}) || why != "no space left on device" {
		t.Errorf("lost %+v, %s", lost, why)
	}
	s.set(-1)
	put(t, q, "four\n") // waits for the next attempt
	put(t, q, "five\n")
	shut(t, q)
	if want := "one\ntwo\nth\n" + notice(lost, why) + "\nfour\nfive\n"; s.String() != want {
		t.Errorf("got %q, want %q", s.String(), want)
	}
}

// A queue tries again by itself: what waits is not kept until somebody writes.
func TestQueueTriesAgain(t *testing.T) {
	nettest.NoLeaks(t)
	s := &sink{room: 0, fail: errors.New("no")}
	q := NewQueue(s, notice)
	put(t, q, "lost\n")
	nettest.Eventually(t, 20*time.Second, "it is lost", func() bool { l, _ := q.Lost(); return l.Bytes == 5 })
	put(t, q, "kept\n")
	s.set(-1)
	nettest.Eventually(t, 20*time.Second, "the rest is written", func() bool { return s.String() == notice(Lost{5, 1}, "no")+"\nkept\n" })
	shut(t, q)
}

func TestQueueOfALogThatIsStuck(t *testing.T) {
	s := &sink{room: -1, turns: make(chan struct{})}
	q := NewQueue(s, notice)
	put(t, q, "stuck\n")
	if err := q.Close(10 * time.Millisecond); err == nil {
		t.Error("it is closed")
	}
	put(t, q, "late\n")
	if l, _ := q.Lost(); l.Bytes != 5 {
		t.Errorf("lost %+v", l)
	}
	close(s.turns)
	shut(t, q)
}

// A log is given back when nobody writes to it any more, and not before.
func TestQueueSetTo(t *testing.T) {
	nettest.NoLeaks(t)
	one, two := &sink{room: -1, turns: make(chan struct{})}, &sink{room: -1}
	q := NewQueue(one, notice)
	put(t, q, "one\n")
	nettest.Eventually(t, 20*time.Second, "it is being written", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.waits) == 0
	})
	retired := make(chan string, 2)
	q.SetTo(two, func() { retired <- one.String() })
	put(t, q, "two\n")
	select {
	case <-retired:
		t.Error("given back while it is written to")
	default:
	}
	close(one.turns)
	if got := <-retired; got != "one\n" {
		t.Errorf("it had %q", got)
	}
	shut(t, q)
	if two.String() != "two\n" {
		t.Errorf("the other has %q", two.String())
	}
	q.SetTo(one, func() { retired <- "at once" })
	if got := <-retired; got != "at once" {
		t.Error(got)
	}
}

// Lines of queues that share a log are whole, and none waits for a flood to end.
func TestQueuesTakeTurns(t *testing.T) {
	nettest.NoLeaks(t)
	shared := &sink{room: -1}
	flood, quiet := NewQueue(shared, notice), NewQueue(shared, notice)
	stop, stopped := make(chan struct{}), make(chan struct{})
	line := []byte(strings.Repeat("f", 99) + "\n")
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = flood.Write(line)
			}
		}
	}()
	for i := range 20 {
		text := fmt.Sprintf("quiet %d\n", i)
		put(t, quiet, text)
		nettest.Eventually(t, 20*time.Second, "the line is there", func() bool { return strings.Contains(shared.String(), text) })
	}
	close(stop)
	<-stopped
	shut(t, flood)
	shut(t, quiet)
	if l, _ := quiet.Lost(); l != (Lost{}) {
		t.Errorf("the quiet one lost %+v", l)
	}
	for l := range strings.Lines(shared.String()) {
		if l != string(line) && !strings.HasPrefix(l, "quiet ") && !strings.HasPrefix(l, "LOST ") {
			t.Fatalf("torn line %q", l)
		}
	}
}
