package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/logfile"
	"fiefdom/internal/nettest"
)

func TestEmperorLogDoesNotWaitForItsReader(t *testing.T) {
	nettest.NoLeaks(t)
	r, w := io.Pipe()
	l := newEmperorLog(w)
	for range 2 * logfile.QueueSize / len("line\n") { // nobody reads: this must come to its end
		if _, err := l.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	lost, _ := l.Lost()
	if lost.Lines == 0 {
		t.Error("nothing is lost")
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&got, r); close(read) }()
	if err := l.Close(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	w.Close()
	<-read
	if n := strings.Count(got.String(), "line\n"); uint64(n)+lost.Lines != uint64(2*logfile.QueueSize/len("line\n")) {
		t.Errorf("%d lines are written, %d counted", n, lost.Lines)
	}
	// It is told where it was: lines may follow, if the writer began late.
	if !strings.Contains(got.String(), "\n"+logfile.Notice(lost, "it came faster than it could be written")+"\n") {
		t.Errorf("the loss is not told: %q", got.String()[max(0, got.Len()-200):])
	}
}

// A log in somebody's folder is a file there, and nothing that he puts in its place.
func TestEmperorLogIsNotLedAstray(t *testing.T) {
	nettest.Root(t)
	for name, lay := range map[string]func(victim, path string) error{
		"link": os.Symlink,
		"link to FIFO": func(_, path string) error {
			return errors.Join(unix.Mkfifo(path+".fifo", 0o600), os.Symlink(path+".fifo", path))
		},
		"FIFO": func(_, path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			victim, dir := filepath.Join(t.TempDir(), "victim"), t.TempDir()
			path := filepath.Join(dir, "log")
			if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Chown(dir, 1000, 1000), lay(victim, path)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				l := newEmperorLog(io.Discard)
				defer l.close()
				_, err := l.open(&emperor.Config{LogTo: path})
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					t.Error("it was opened")
				}
			case <-time.After(10 * time.Second):
				t.Error("it waits for a reader of the pipe")
			}
		})
	}
	var mine [2]string
	for i, owner := range []int{0, 1000} {
		mine[i] = t.TempDir()
		if err := os.Chown(mine[i], owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if !rootsAlone("/") || !rootsAlone(mine[0]) || rootsAlone(mine[1]) || rootsAlone("/tmp") || rootsAlone("tmp") {
		t.Error("whose folders are whose is not known")
	}
}

func TestCopyLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, tc := range map[string]struct{ pieces, want []string }{
		"lines":     {[]string{"a\n", "b\n"}, []string{"a\n", "b\n"}},
		"in pieces": {[]string{"a", "b\nc", "\nd\ne"}, []string{"ab\n", "c\nd\n", "e"}},
		"too long":  {[]string{long, "y\n"}, []string{long[:64<<10], long[64<<10:] + "y\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			var readers []io.Reader
			for _, p := range tc.pieces {
				readers = append(readers, strings.NewReader(p))
			}
			var w pieces
			copyLines(&w, io.MultiReader(readers...))
			if strings.Join(w, "|") != strings.Join(tc.want, "|") {
				t.Errorf("got %.100q", w)
			}
		})
	}
}

// pieces are what was written, write by write.
type pieces []string

func (p *pieces) Write(b []byte) (int, error) {
	if len(b) > 0 {
		*p = append(*p, string(b))
	}
	return len(b), nil
}

// What children say is in the log, and none of them waits for it, not even
// when the emperor is gone and nobody reads.
func TestChildrenWriteToTheLog(t *testing.T) {
	nettest.NoLeaks(t)
	var log bytes.Buffer
	l, own := newEmperorLog(&log), os.Stderr
	if err := l.childrenTo(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	theirs := os.Stderr
	child, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "echo from a child >&2"}, &os.ProcAttr{Files: []*os.File{nil, nil, theirs}})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := child.Wait(); err != nil || !state.Success() {
		t.Fatalf("%v, %v", state, err)
	}
	flags, err := unix.FcntlInt(theirs.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: a child would wait", flags, err)
	}
	l.close()
	if os.Stderr != own {
		t.Error("standard error is not what it was")
	}
	if log.String() != "from a child\n" {
		t.Errorf("the log has %q", log.String())
	}
}
