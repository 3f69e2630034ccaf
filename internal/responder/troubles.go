package responder

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A responder that ends soon after its start is started again at once a few times:
// its death may be an accident. Then there is a pause, which grows.
const (
	restarts     = 5
	restartPause = 500 * time.Millisecond
	longestPause = 10 * time.Second // vassals wait for names
	wellTime     = 5 * time.Second  // who answers so long is well
	tellTime     = 10 * time.Minute // a trouble that goes on is told again
)

// pauseAfter is how long to wait after so many short lives in a row, where first is
// the first pause.
func pauseAfter(young int, first time.Duration) time.Duration {
	if young <= restarts {
		return 0
	}
	return min(first<<min(young-restarts-1, 16), longestPause)
}

// troubles is what keeps a responder from staying up. It is safe for concurrent use.
type troubles struct {
	mu   sync.Mutex
	why  string
	told time.Time
}

// Trouble says why questions are not answered; "" where they are, or may be at once.
func (t *troubles) Trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why
}

// ended is told of the death that ended a life, the last of so many short ones in a
// row. The log hears of the first one, and once that they do not end.
func (t *troubles) ended(log *slog.Logger, err error, lived time.Duration, young int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lived = lived.Round(time.Millisecond)
	if young > restarts {
		t.why = err.Error()
	}
	switch {
	case young <= 1:
		log.Error("responder ended; starting it again", "err", err, "lasted", lived)
	case young == restarts+1, young > restarts && time.Since(t.told) >= tellTime:
		log.Error("responder does not stay up; vassals' questions for names are not answered", "err", err, "lasted", lived, "deaths", young)
		t.told = time.Now()
	}
}

// well is told that a responder has stayed up for a while.
func (t *troubles) well(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != "" {
		t.why = ""
		log.Info("responder answers again")
	}
}

// sayWhy is how a process that fails tells its keeper why. It says no where nobody
// could hear that.
func sayWhy(keeper int, err error) bool {
	_, failed := unix.Write(keeper, []byte(failedByte+err.Error()))
	return failed == nil
}

// What a process says: that it answers, and then, or at once, why it ends.
const (
	answersByte = '.'
	failedByte  = "!"
	longestWhy  = 4096
)

// awaitAnswers waits until a process says that it answers.
func awaitAnswers(control net.Conn) error {
	said := []byte{0}
	switch _, err := control.Read(said); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("wait for it: %w", err)
	case err != nil || said[0] != answersByte:
		return errors.New("it does not answer")
	}
	return nil
}

// lastWords is why a process ended, by what it has said itself beside its state.
func lastWords(control net.Conn, state error) error {
	if err := control.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return state
	}
	said, _ := io.ReadAll(io.LimitReader(control, longestWhy)) // what there is
	if text := strings.TrimPrefix(string(said), failedByte); text != "" {
		return fmt.Errorf("%s (%w)", text, state)
	}
	return state
}
