package emperor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// Descriptors that must be free for a start to begin. Without, vassals would
// take the last ones, and nobody could ask the emperor what is wrong, or stop some.
const (
	startFiles = 16 // that a start takes at most, for a moment
	spareFiles = 12 // for whoever asks, and for an expander
)

// fileBudget counts the starts that are under way.
type fileBudget struct {
	mu       sync.Mutex
	starting int
}

// take says whether there are descriptors for one more start, until it gives
// them back: by then they are open, or not needed.
func (b *fileBudget) take() (give func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	open, most, err := usedFiles()
	if err != nil {
		return nil, err
	}
	if open+spareFiles+startFiles*(b.starting+1) > most {
		return nil, fmt.Errorf("%w: %d of the %d that the emperor may open are in use; raise LimitNOFILE= of its unit (ulimit -n)", unix.EMFILE, open, most)
	}
	b.starting++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.starting--
	}), nil
}

// usedFiles is how many descriptors the process has, and may have.
func usedFiles() (open, most int, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, 0, fmt.Errorf("ask for the limit of open files: %w", err)
	}
	const folder = "/proc/self/fd"
	st, err := os.Stat(folder) // needs no descriptor itself
	if err != nil {
		return 0, 0, fmt.Errorf("count open files: %w", err)
	}
	if st.Size() > 0 {
		return int(st.Size()), int(limit.Cur), nil
	}
	entries, err := os.ReadDir(folder) // before Linux 6.2
	return len(entries), int(limit.Cur), err
}

// passing counts the starts in a row that failed for a want that passes and is
// not the vassal's own.
func passing(before int, err error) int {
	if taken, ok := errors.AsType[*takenError](err); !vassal.Passing(err) && (!ok || !taken.waits()) {
		return 0
	}
	return before + 1
}

// passingDelay is how long a vassal waits whose start failed for a want that
// passes and is not its own. It does not grow: all is well soon after the want has gone.
func passingDelay() time.Duration {
	const least, jitter = time.Second, time.Second
	return least + rand.N(jitter)
}
