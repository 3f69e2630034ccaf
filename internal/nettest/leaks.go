package nettest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// NoLeaks fails the test if, at its end, there are goroutines or descriptors
// that were not there when NoLeaks was called. It is not for parallel tests,
// whose neighbours come and go. Call it before what has to be closed by Cleanup.
func NoLeaks(t testing.TB) {
	t.Helper()
	// The runtime keeps an epoll descriptor from its first use on.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	goroutines := goleak.IgnoreCurrent()
	before := descriptors(t)
	t.Cleanup(func() {
		if err := goleak.Find(goroutines); err != nil {
			t.Error(err)
		}
		var leaked []string
		// A process's pidfd and the like are closed a moment after the goroutine is gone.
		if !poll(2*time.Second, func() bool {
			leaked = more(before, descriptors(t))
			return len(leaked) == 0
		}) {
			t.Errorf("descriptors left open: %q", leaked)
		}
	})
}

// descriptors counts the open descriptors by what they are open on.
func descriptors(t testing.TB) map[string]int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("list descriptors: %v", err)
	}
	open := map[string]int{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil { // the listing's own is closed again
			open[target]++
		}
	}
	return open
}

// more lists the keys that after counts more often than before.
func more(before, after map[string]int) []string {
	var keys []string
	for key, n := range after {
		for range n - before[key] {
			keys = append(keys, key)
		}
	}
	return keys
}
