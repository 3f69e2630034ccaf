package vassal

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

func newTestPipe(t *testing.T) (ours, theirs *pipe) {
	t.Helper()
	ours, f, err := newPipe()
	if err != nil {
		t.Fatal(err)
	}
	theirs = &pipe{f}
	t.Cleanup(func() { ours.close(); theirs.close() })
	return ours, theirs
}

func TestPipeCarriesMessagesBothWays(t *testing.T) {
	nettest.NoLeaks(t)
	ours, theirs := newTestPipe(t)
	if err := ours.send(Plan{Name: "blog", Args: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if err := ours.send(goAhead{Go: true}); err != nil {
		t.Fatal(err)
	}
	var p Plan
	if fd, err := theirs.receive(&p); err != nil || fd != -1 || p.Name != "blog" || p.Args[0] != "a" {
		t.Fatalf("%+v, %d, %v", p, fd, err)
	}
	var g goAhead
	if _, err := theirs.receive(&g); err != nil || !g.Go {
		t.Fatalf("%+v, %v", g, err)
	}
	if err := theirs.send(word{Error: "no"}); err != nil {
		t.Fatal(err)
	}
	var w word
	if _, err := ours.receive(&w); err != nil || w.Error != "no" {
		t.Fatalf("%+v, %v", w, err)
	}
}

func TestPipeCarriesADescriptor(t *testing.T) {
	nettest.NoLeaks(t)
	ours, theirs := newTestPipe(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := theirs.send(word{Log: true}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var got word
	fd, err := ours.receive(&got)
	if err != nil || !got.Log || fd < 0 {
		t.Fatalf("%+v, %d, %v", got, fd, err)
	}
	f := os.NewFile(uintptr(fd), "log")
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

// Whoever sends more descriptors than one does not fill our table.
func TestPipeKeepsOneDescriptor(t *testing.T) {
	nettest.NoLeaks(t)
	ours, theirs := newTestPipe(t)
	if err := theirs.send(word{Log: true}, 0, 1, 2); err != nil {
		t.Fatal(err)
	}
	fd, err := ours.receive(new(word))
	if err != nil {
		t.Fatal(err)
	}
	if fd >= 0 {
		os.NewFile(uintptr(fd), "one").Close()
	}
}

func TestPipeEnds(t *testing.T) {
	ours, theirs := newTestPipe(t)
	theirs.close()
	if _, err := ours.receive(new(word)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if err := ours.send(goAhead{}); err == nil {
		t.Error("sent to nobody")
	}
}

// A receive that waits ends with its own pipe: no goroutine is left.
func TestPipeClosedWhileItWaits(t *testing.T) {
	nettest.NoLeaks(t)
	ours, _ := newTestPipe(t)
	done := make(chan error)
	go func() {
		_, err := ours.receive(new(word))
		done <- err
	}()
	ours.close()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

func TestPipeSizes(t *testing.T) {
	ours, theirs := newTestPipe(t)
	big := Plan{Env: []string{strings.Repeat("x", maxMessage-4000)}}
	if err := ours.send(big); err != nil {
		t.Fatalf("a message that fits: %v", err)
	}
	var got Plan
	if _, err := theirs.receive(&got); err != nil || len(got.Env) != 1 || got.Env[0] != big.Env[0] {
		t.Errorf("it did not arrive whole: %v", err)
	}
	if err := ours.send(Plan{Env: []string{strings.Repeat("x", maxMessage)}}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func TestPipeRefusesNonsense(t *testing.T) {
	ours, theirs := newTestPipe(t)
	if _, err := theirs.file.WriteString("{no json"); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.receive(new(word)); err == nil {
		t.Error("no error")
	}
}
