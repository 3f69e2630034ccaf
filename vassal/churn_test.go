package vassal

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// churned are apps that are started at once, each by a thread of its own.
const churned = 20

// The threads that start apps end, and with them no app: what the kernel calls
// a parent's death is that of its thread. // T49
func TestSoakThreadsComeAndGo(t *testing.T) {
	nettest.NoLeaks(t)
	rounds := 10
	if os.Getenv("FIEFDOM_SOAK") == "1" {
		rounds = 10_000 / churned
	}
	j, err := NewJail("test", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		churn(t, j)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// churn starts apps by threads that end, and then lets each app end by itself.
func churn(t *testing.T, j *Jail) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var apps [churned]*Generation
	var errs [churned]error
	var threads [churned]int
	var starting sync.WaitGroup
	for i := range churned {
		starting.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			threads[i] = unix.Gettid()
			apps[i], errs[i] = j.Start(t.Context(), Launch{Plan: planOf("read line; exit 7"), Stdin: r, Output: r})
		})
	}
	starting.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 20*time.Second, "the threads have ended", func() bool {
		for _, tid := range threads {
			if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(tid)); !errors.Is(err, fs.ErrNotExist) && tid != os.Getpid() {
				return false
			}
		}
		return true
	})
	if err := w.Close(); err != nil { // the end of their input
		t.Fatal(err)
	}
	for _, app := range apps {
		if exit := app.Wait(); exit.Err != nil || exit.Signal != 0 || exit.Code != 7 {
			t.Errorf("an app ended by itself: %v", exit)
		}
	}
}
