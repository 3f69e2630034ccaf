package netns

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// outcome is how a function ended that ran on another goroutine: it returned
// err, it panicked, or it left by runtime.Goexit.
type outcome struct {
	err      error
	panicked string // the value and the stack
	left     bool
}

// run calls fn and notes how it ended. A panic stops here; Goexit cannot be
// stopped, so what has to be done after run belongs in a deferred function.
func (o *outcome) run(fn func() error) {
	o.left = true
	defer func() {
		if v := recover(); v != nil {
			o.panicked = fmt.Sprintf("%v\n\n%s", v, debug.Stack())
		}
	}()
	o.err = fn()
	o.left = false
}

// resume ends the calling goroutine's part the way fn ended.
func (o *outcome) resume() error {
	if o.panicked != "" {
		panic(o.panicked)
	}
	if o.left {
		runtime.Goexit()
	}
	return o.err
}
