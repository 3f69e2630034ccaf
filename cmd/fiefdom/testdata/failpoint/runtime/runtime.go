// Package runtime takes the place of gofail's own in the program that the test of
// failpoints builds: a point can do nothing but kill its process, as SIGKILL from
// outside would at that very place. Which one does is said by a file, so that it
// can be said at any time, and of one process in a row of them.
package runtime

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// The files, in the world of a test.
const (
	armed  = "/run/t/failpoint"  // "NAME N": the Nth passage of the point from now on kills, once
	passed = "/run/t/failpoints" // gets a line for each passage, if it is there
)

var errPassed = errors.New("passed")

var mu sync.Mutex
var text string // of armed, as it was seen last
var left int    // passages until the kill

// Failpoint is one comment "gofail: var NAME struct{}".
type Failpoint struct{ name string }

// NewFailpoint is called by what gofail generates.
func NewFailpoint(name string) *Failpoint { return &Failpoint{name} }

// Acquire is called where the comment stands.
func (f *Failpoint) Acquire() (any, error) {
	mu.Lock()
	defer mu.Unlock()
	if log, err := os.OpenFile(passed, os.O_WRONLY|os.O_APPEND, 0); err == nil {
		fmt.Fprintln(log, f.name)
		log.Close()
	}
	b, err := os.ReadFile(armed)
	if err != nil {
		text = ""
		return nil, errPassed
	}
	var name string
	var n int
	if _, err := fmt.Sscan(string(b), &name, &n); err != nil || name != f.name {
		return nil, errPassed
	}
	if string(b) != text {
		text, left = string(b), n
	}
	if left--; left > 0 {
		return nil, errPassed
	}
	if os.Remove(armed) != nil {
		return nil, errPassed // somebody else has just died of it
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {}
}

// BadType is what a point with a value would call.
func (f *Failpoint) BadType(any, string) {}
