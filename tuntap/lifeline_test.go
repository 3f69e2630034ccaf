package tuntap

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// moody is the router's end of a life line, which a test answers by.
type moody struct {
	t    *testing.T
	conn *net.UnixConn
}

// newMoody returns a life line that waits for patience, and its other end.
func newMoody(t *testing.T, patience time.Duration) (*Lifeline, *moody) {
	t.Helper()
	nettest.NoLeaks(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "life line")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
	}
	l := newLifeline(ends[0])
	l.patience = patience
	t.Cleanup(func() { // the router first: nobody takes leave of it
		ends[1].Close()
		l.Close()
	})
	return l, &moody{t, ends[1]}
}

// question reads a whole question and returns how many rules are in it, or -1 for a
// goodbye.
func (m *moody) question() int {
	m.t.Helper()
	var doc []byte
	for {
		var head [frameHeader]byte
		if _, err := io.ReadFull(m.conn, head[:]); err != nil {
			m.t.Fatal(err)
		}
		part := make([]byte, int(head[1])|int(head[2])<<8)
		if _, err := io.ReadFull(m.conn, part); err != nil {
			m.t.Fatal(err)
		}
		doc = append(doc, part...)
		switch head[3] {
		case kindGoodbye:
			return -1
		case kindPart:
		case kindOwn:
			var rules []DeviceRule
			if err := json.Unmarshal(doc, &rules); err != nil {
				m.t.Fatalf("the rules are torn: %v", err)
			}
			return len(rules)
		default:
			m.t.Fatalf("a frame of kind %#x among %d bytes", head[3], len(doc))
		}
	}
}

func (m *moody) answer(text string) {
	m.t.Helper()
	if _, err := m.conn.Write(framed(kindAnswer, []byte(text))); err != nil {
		m.t.Fatal(err)
	}
}

func rulesOf(n int) []DeviceRule { return make([]DeviceRule, n) }

const (
	hasty   = 50 * time.Millisecond
	patient = 20 * time.Second
)

// A late answer is not taken for that of the next question.
func TestLifelineLateAnswer(t *testing.T) {
	l, m := newMoody(t, hasty)
	for n := range 2 {
		if err := l.SetRules(rulesOf(n)); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrLineLost) {
			t.Fatal(err)
		}
	}
	l.patience = patient
	done := make(chan error)
	go func() { done <- l.SetRules(rulesOf(2)) }()
	for n := range 3 {
		if got := m.question(); got != n {
			t.Errorf("question %d has %d rules", n, got)
		}
		m.answer([]string{"", "", "not that"}[n])
	}
	if err := <-done; err == nil || err.Error() != "not that" {
		t.Errorf("the answer is %v", err)
	}
	go func() { done <- l.SetRules(rulesOf(3)) }()
	m.question()
	m.answer("")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// One that never answers is asked so often and not more; its end is an end still.
func TestLifelineNoAnswer(t *testing.T) {
	l, m := newMoody(t, time.Millisecond)
	for range 2 * mostLate {
		if err := l.SetRules(nil); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrLineLost) {
			t.Fatal(err)
		}
	}
	for range mostLate {
		m.question()
	}
	go l.Close()
	if m.question() != -1 {
		t.Error("it is asked without end")
	}
	m.conn.Close()
	<-l.Lost()
	if err := l.SetRules(nil); !errors.Is(err, ErrLineLost) {
		t.Errorf("after its end: %v", err)
	}
}

// An answer that nobody asked for is not taken for one, and ends the line.
func TestLifelineUnaskedAnswers(t *testing.T) {
	for name, count := range map[string]int{"one": 1, "more than anybody could have asked for": 3 * mostLate} {
		t.Run(name, func(t *testing.T) {
			l, m := newMoody(t, hasty)
			for range count {
				if _, err := m.conn.Write(framed(kindAnswer, nil)); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-l.Lost():
			case <-time.After(patient):
				t.Fatal("the line goes on")
			}
			if err := l.SetRules(nil); !errors.Is(err, ErrLineBroken) || errors.Is(err, ErrLineLost) || !strings.Contains(err.Error(), "restart the vassal") {
				t.Errorf("a question on it: %v", err)
			}
		})
	}
	t.Run("two for one question", func(t *testing.T) {
		l, m := newMoody(t, patient)
		done := make(chan error)
		go func() { done <- l.SetRules(nil) }()
		m.question()
		m.answer("")
		m.answer("")
		<-l.Lost()
		<-done // the first may have been in time
		if err := l.SetRules(nil); !errors.Is(err, ErrLineBroken) {
			t.Errorf("a question on it: %v", err)
		}
	})
	t.Run("what is no answer", func(t *testing.T) {
		l, m := newMoody(t, patient)
		if _, err := m.conn.Write(framed(kindOwn, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		<-l.Lost()
		if err := l.SetRules(nil); !errors.Is(err, ErrLineBroken) {
			t.Errorf("a question on it: %v", err)
		}
	})
}

// What a router did not take in time goes on where it stopped: no frame is torn, and
// nothing is believed before it has answered all of it.
func TestLifelineTakesNothing(t *testing.T) {
	l, m := newMoody(t, hasty)
	const many = 5000 // more than a socket's buffer
	for range 3 {
		if err := l.SetRules(rulesOf(many)); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrLineLost) {
			t.Fatal(err)
		}
	}
	if len(l.rest) == 0 {
		t.Fatal("the buffer takes it all")
	}
	l.patience = patient
	done := make(chan error)
	go func() { done <- l.SetRules(rulesOf(1)) }()
	if got := m.question(); got != many {
		t.Errorf("the first question has %d rules", got)
	}
	m.answer("")
	if got := m.question(); got != 1 {
		t.Errorf("the next question has %d rules", got)
	}
	m.answer("not that")
	if err := <-done; err == nil || err.Error() != "not that" {
		t.Errorf("the answer is %v", err)
	}
}

// A goodbye comes behind what the router had not taken.
func TestLifelineGoodbyeAfterHalfAQuestion(t *testing.T) {
	l, m := newMoody(t, hasty)
	if err := l.SetRules(rulesOf(5000)); !errors.Is(err, ErrNoAnswer) || len(l.rest) == 0 {
		t.Fatal(err, len(l.rest))
	}
	closed := make(chan error)
	go func() { closed <- l.Close() }()
	m.question()
	if m.question() != -1 {
		t.Error("there is no goodbye")
	}
	m.conn.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// A router that takes nothing holds up no close, and leaves nothing behind.
func TestLifelineCloseWithoutARouter(t *testing.T) {
	l, m := newMoody(t, hasty)
	if err := l.SetRules(rulesOf(5000)); !errors.Is(err, ErrNoAnswer) {
		t.Fatal(err)
	}
	if err := l.Close(); err == nil {
		t.Error("nobody says that the router did not take leave")
	}
	if _, err := io.Copy(io.Discard, m.conn); err != nil {
		t.Error(err)
	}
}
