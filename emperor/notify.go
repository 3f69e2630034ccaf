package emperor

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"fiefdom/internal/plaintext"
	"fiefdom/vassal"
)

// appNotices is what a generation tells by sd_notify(3).
type appNotices struct {
	socket *vassal.NotifySocket
	ready  chan struct{}      // closed when it is ready
	extend chan time.Duration // it asks for more time to start
	beat   chan struct{}      // WATCHDOG=1

	mu   sync.Mutex
	once bool   // ready is closed
	text string // STATUS=
	word string // reloading, stopping
}

// Bounds of what an app says of itself.
const (
	maxAppText   = 200 // runes that are kept
	maxExtension = 10 * time.Minute
)

// notified makes the socket of a start that asks for one, and tells the app of it.
func (s *startJob) notified(l *vassal.Launch) error {
	if !s.config.Notifies() {
		return nil
	}
	socket, err := s.jail.Notify(s.launch)
	if err != nil {
		return err
	}
	s.notices = newNotices(socket)
	l.Env = []string{"NOTIFY_SOCKET=" + socket.Address}
	if w := s.config.Watchdog; w > 0 {
		l.Env = append(l.Env, "WATCHDOG_USEC="+strconv.FormatInt(w.Microseconds(), 10))
	}
	return nil
}

func newNotices(socket *vassal.NotifySocket) *appNotices {
	return &appNotices{socket: socket, ready: make(chan struct{}), extend: make(chan time.Duration, 1), beat: make(chan struct{}, 1)}
}

// hear listens until the generation has ended; without one there is nobody to
// hear.
func (s *startJob) hear() {
	n := s.notices
	if n == nil {
		return
	}
	if s.gen == nil {
		_ = n.socket.Close()
		return
	}
	s.e.hearNotices(s.name, s.gen, s.r.plan.UID, n)
}

func (e *Emperor) hearNotices(name string, gen *vassal.Generation, uid int, n *appNotices) {
	e.jobs.Go(func() { gen.Wait(); _ = n.socket.Close() })
	e.jobs.Go(func() {
		if err := n.socket.Listen(max(uid, 0), n.take); err != nil {
			e.Log.Warn("the vassal's notices are not heard any more", "vassal", name, "err", err)
		}
	})
}

// take takes one message: lines of KEY=VALUE. What it does not know, MAINPID
// among it, is nothing to it.
func (n *appNotices) take(message []byte) {
	for line := range bytes.SplitSeq(message, []byte{'\n'}) {
		key, value, _ := strings.Cut(string(line), "=")
		n.mu.Lock()
		switch {
		case key == "STATUS":
			n.text = tame(value)
		case key == "READY" && value == "1":
			if n.word = ""; !n.once {
				n.once = true
				close(n.ready)
			}
		case key == "RELOADING" && value == "1":
			n.word = "reloading"
		case key == "STOPPING" && value == "1":
			n.word = "stopping"
		case key == "WATCHDOG" && value == "1":
			select {
			case n.beat <- struct{}{}:
			default:
			}
		case key == "EXTEND_TIMEOUT_USEC":
			if us, err := strconv.ParseUint(value, 10, 63); err == nil {
				select {
				case n.extend <- min(time.Duration(min(us, uint64(maxExtension/time.Microsecond)))*time.Microsecond, maxExtension):
				default:
				}
			}
		}
		n.mu.Unlock()
	}
}

// tame makes a text of an app's fit to be shown: one line, printable, short.
func tame(s string) string {
	r := []rune(plaintext.Line(s))
	return string(r[:min(len(r), maxAppText)])
}

// says is what the app says of itself.
func (n *appNotices) says() string {
	if n == nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.word != "" && n.text != "" {
		return n.word + ": " + n.text
	}
	return n.word + n.text
}

// watchdog kills a generation that does not say often enough that it lives.
func (e *Emperor) watchdog(ctx context.Context, v *member, g *vassal.Generation, n *appNotices, patience time.Duration) {
	silence := time.NewTimer(patience)
	defer silence.Stop()
	for {
		select {
		case <-n.beat:
			silence.Reset(patience)
		case <-silence.C:
			e.call(func() {
				e.unwell(v, g, fmt.Errorf("unhealthy: no WATCHDOG=1 for %s (watchdog)", patience))
			})
			return
		case <-ctx.Done():
			return
		}
	}
}
