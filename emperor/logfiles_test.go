package emperor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// Where a log has lost what memory has, each line is still told once.
func TestOlderLinesWhereSomeWereLost(t *testing.T) {
	nettest.NoLeaks(t)
	o := newOutput(t, &lines{})
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	f, p := logPlan(t, filepath.Join(t.TempDir(), "log"), vassal.Logging{})
	o.setLogs(loggingEmperor(), f, p)
	const all = 10_000
	for i := range all {
		o.take(fmt.Appendf(nil, "line %d\n", i))
	}
	o.mu.Lock()
	o.history.index = o.history.index[len(o.history.index)/2:] // the rest is forgotten
	o.keep([]byte("not in the file\n"))
	o.mu.Unlock()
	kept, _ := o.tail(0)
	memory, _ := kept.lines(false)
	if len(memory) < 1000 || len(memory) > all-1000 || memory[len(memory)-1].Text != "not in the file" {
		t.Fatalf("memory has %d lines", len(memory))
	}
	for _, c := range []struct {
		q     LogQuery
		first int
	}{{LogQuery{Last: 10 * all}, 0}, {LogQuery{Since: time.Now().Add(-time.Hour)}, 0}, {LogQuery{Last: len(memory) + 10}, all + 1 - len(memory) - 10}} {
		files, err := o.files()
		if err != nil || files == nil {
			t.Fatal(files, err)
		}
		next := c.first
		err = files.older(t.Context(), c.q, kept.kept, len(c.q.choose(memory)), func(l LogLine) error {
			if want := fmt.Sprintf("line %d", next); l.Text != want || l.File != "log" {
				return fmt.Errorf("%+v; want %s", l, want)
			}
			next++
			return nil
		})
		if cerr := files.Close(); err != nil || cerr != nil {
			t.Error(err, cerr)
		}
		if want := all + 1 - len(memory); next != want {
			t.Errorf("%+v: up to line %d; want %d", c.q, next, want)
		}
	}
}

// Of a file that its owner made endless the last lines are read, and nothing of one
// whose reader has left.
func TestOlderLinesOfAnEndlessFile(t *testing.T) {
	nettest.NoLeaks(t)
	o := newOutput(t, &lines{})
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(t.TempDir(), "log")
	f, p := logPlan(t, path, vassal.Logging{})
	o.setLogs(loggingEmperor(), f, p)
	const hole = 1 << 40
	if err := os.Truncate(path, hole); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("\none\ntwo\nthree\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := o.files()
	if err != nil || files == nil {
		t.Fatal(files, err)
	}
	defer files.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for last, want := range map[int]string{1: "three", 3: "one two three", 100: "three"} {
		var got []string
		if err := files.older(ctx, LogQuery{Last: last}, nil, 0, func(l LogLine) error { got = append(got, l.Text); return nil }); err != nil {
			t.Fatalf("-n %d: %v", last, err)
		}
		if text := strings.Join(got, " "); len(got) > last || !strings.HasSuffix(text, want) || last < 10 && text != want {
			t.Errorf("-n %d: %d lines, the last are %.60q", last, len(got), got[max(0, len(got)-3):])
		}
	}
	left, leave := context.WithCancel(t.Context())
	told := 0
	err = files.older(left, LogQuery{Since: time.Now().Add(-time.Hour)}, nil, 0, func(LogLine) error { told++; leave(); return nil })
	if !errors.Is(err, context.Canceled) || told != 1 {
		t.Errorf("who has left was told %d lines: %v", told, err)
	}
}

// The last lines are the same wherever the reading begins.
func TestLastLinesBeginWhole(t *testing.T) {
	o := newOutput(t, &lines{})
	defer o.close()
	path := filepath.Join(t.TempDir(), "log")
	f, p := logPlan(t, path, vassal.Logging{})
	o.setLogs(loggingEmperor(), f, p)
	if err := os.WriteFile(path, []byte("aaa\nbbbb\n\ncc\nd"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := o.files()
	if err != nil || files == nil {
		t.Fatal(files, err)
	}
	defer files.Close()
	for last, want := range map[int64]string{0: "", 1: "d", 2: "d", 3: "d", 4: "cc d", 5: " cc d", 6: " cc d", 9: " cc d", 10: "bbbb  cc d", 14: "aaa bbbb  cc d", 99: "aaa bbbb  cc d", wholePart: "aaa bbbb  cc d"} {
		var got []string
		if err := files.lines(t.Context(), 0, last, func(text []byte) error { got = append(got, string(text)); return nil }); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("of the last %d bytes: %q, want %q", last, text, want)
		}
	}
}
