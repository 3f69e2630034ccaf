package main

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
)

func TestLogWriterDoesNotWaitForItsReader(t *testing.T) {
	r, w := io.Pipe()
	l := newLogWriter(w)
	const more = 100
	for range logQueue + more { // nobody reads: this must come to its end
		if _, err := l.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&got, r); close(read) }()
	for len(l.lines) > logQueue/4 {
		runtime.Gosched()
	}
	if _, err := l.Write([]byte("later\n")); err != nil {
		t.Fatal(err)
	}
	l.close()
	w.Close()
	<-read
	lines := strings.Split(strings.TrimSpace(got.String()), "\n")
	if n := strings.Count(got.String(), "line\n"); n < logQueue || n > logQueue+1 {
		t.Errorf("%d lines written; want the %d that fit", n, logQueue)
	}
	if last := lines[len(lines)-1]; last != "later" {
		t.Errorf("last line is %q", last)
	}
	if !strings.Contains(got.String(), "log lines were lost") {
		t.Error("the loss is not told")
	}
}
