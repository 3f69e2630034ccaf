package nettest

import (
	"testing"
	"time"
)

// Eventually waits until holds returns true and fails the test, naming what it
// waited for, if that takes longer than within. It is for conditions that
// nothing announces; wait on a channel where there is one.
func Eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	if !poll(within, holds) {
		t.Fatalf("still not after %v: %s", within, what)
	}
}

// poll asks often at first and then ever more rarely, for the duration within.
func poll(within time.Duration, holds func() bool) bool {
	deadline := time.Now().Add(within)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}
