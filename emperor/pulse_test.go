package emperor

import (
	"context"
	"errors"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func TestPulse(t *testing.T) {
	r := newRealm(t, nil)
	r.write(t, "blog", stays)
	r.write(t, "bad", "[uwsgi]\ncommand = 'a\n")
	r.awaitState(t, "blog", Running)
	r.awaitState(t, "bad", Invalid)
	p, err := r.Pulse(t.Context())
	if err != nil || p.Reading || p.States[Running] != 1 || p.States[Invalid] != 1 || len(p.States) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	r.end()
	if p, err := r.Pulse(t.Context()); err != nil || p.Reading || len(p.States) != 0 {
		t.Errorf("after the end: %+v, %v", p, err)
	}
}

// A loop that stands still has no pulse, however long one waits, and who waits
// is kept from nothing else.
func TestPulseOfALoopThatStands(t *testing.T) {
	r := newRealm(t, nil)
	held, free := make(chan struct{}), make(chan struct{})
	r.call(func() { close(held); <-free })
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if p, err := r.Pulse(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", p, err)
	}
	close(free)
	if _, err := r.Pulse(t.Context()); err != nil {
		t.Error(err)
	}
}

// As long as an ini waits to be read, the pulse says so.
func TestPulseSaysThatInisAreRead(t *testing.T) {
	reading, free := make(chan struct{}), make(chan struct{})
	r := newRealm(t, nil)
	r.call(func() {
		expand := r.expand
		r.expand = func(o owner, files []iniFile) []expansion {
			close(reading)
			<-free
			return expand(o, files)
		}
	})
	r.write(t, "blog", stays)
	<-reading
	if p, err := r.Pulse(t.Context()); err != nil || !p.Reading {
		t.Errorf("%+v, %v", p, err)
	}
	close(free)
	nettest.Eventually(t, 20*time.Second, "it is read", func() bool {
		p, err := r.Pulse(t.Context())
		return err == nil && !p.Reading && p.States[Starting]+p.States[Running] == 1
	})
}
