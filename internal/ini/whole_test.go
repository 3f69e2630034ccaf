package ini

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// A file is read whole or not at all, however often it is truncated and
// written anew in two pieces. // T27
func TestReadsWholeFilesOnly(t *testing.T) {
	nettest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "x.ini")
	half := strings.Repeat("a = b\n", 1000)
	if err := os.WriteFile(path, []byte(half+half), 0o600); err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for ; ; written.Add(1) {
			select {
			case <-stop:
				return
			default:
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			for range 2 {
				if _, err := f.WriteString(half); err != nil {
					t.Error(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	whole := 0
	for reads := 0; reads < 300 || written.Load() < 300; reads++ {
		text, err := ReadFile(path, nil)
		switch {
		case err == nil && len(text) == 2*len(half):
			whole++
		case err == nil:
			t.Fatalf("after %d writes %d bytes are read, of %d", written.Load(), len(text), 2*len(half))
		case !IsBeingWritten(err):
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if whole == 0 {
		t.Error("it was never read")
	}
}

// Whoever keeps a file open for writing keeps it from being read, for a while.
func TestOpenForWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.ini")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	began := time.Now()
	if text, err := ReadFile(path, nil); !IsBeingWritten(err) {
		t.Errorf("%q, %v", text, err)
	}
	if took := time.Since(began); took > 10*writeWait {
		t.Errorf("it took %v", took)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path, nil); err != nil {
		t.Error(err)
	}
}

// Where there is no lease to be had, a file is read that rests.
func TestReadsWithoutLeases(t *testing.T) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, same, err := readResting(f)
	for late := time.Now().Add(5 * time.Second); !same && err == nil && time.Now().Before(late); {
		data, same, err = readResting(f)
	}
	if !same || err != nil || !strings.Contains(string(data), "Name:") {
		t.Errorf("%q, %v, %v", data, same, err)
	}
	path := filepath.Join(t.TempDir(), "x.ini")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, same, err := readResting(g); same || err != nil {
		t.Errorf("read a moment after it was written: %v", err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if data, same, err := readResting(g); !same || err != nil || string(data) != "x" {
		t.Errorf("%q, %v, %v", data, same, err)
	}
}
