package emperor

import (
	"fmt"
	"path/filepath"
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
		err = files.older(c.q, kept.kept, len(c.q.choose(memory)), func(l LogLine) error {
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
