package emperor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

func openJournal(t *testing.T, dir string) *Journal {
	t.Helper()
	return (&Instance{State: dir}).OpenJournal(slog.New(slog.DiscardHandler))
}

// onDisk are the events of the files, the oldest first.
func onDisk(t *testing.T, j *Journal) (all []Event) {
	t.Helper()
	j.file.read(func(_ stamp, line []byte) bool {
		var ev Event
		if err := json.Unmarshal(line, &ev); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		all = append(all, ev)
		return true
	})
	return all
}

// settled waits until all events are on disk.
func settled(t *testing.T, j *Journal, count int) []Event {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, "all events on disk", func() bool { return len(onDisk(t, j)) >= count })
	return onDisk(t, j)
}

func TestEventsOfLogLines(t *testing.T) {
	type fields = map[string]any
	took := 1500 * time.Millisecond
	for _, tc := range []struct {
		name  string
		level slog.Level
		text  string
		args  []any
		want  Event // without time, id and owner
	}{
		{
			"started", slog.LevelInfo, "vassal running",
			[]any{"vassal", "blog", "pid", 12, "addr", []netip.Addr{addr("10.9.0.2")}, "took", took},
			Event{Kind: "running", Vassal: "blog", Message: "vassal running", Fields: fields{"pid": 12.0, "addr": []any{"10.9.0.2"}, "took": "1.5s"}},
		},
		{
			"died", slog.LevelWarn, "vassal is down",
			[]any{"vassal", "blog", "reason", "exit code 1", "lived", took, "next", took},
			Event{Kind: "died", Vassal: "blog", Message: "vassal is down", Fields: fields{"reason": "exit code 1", "lived": "1.5s", "next": "1.5s"}},
		},
		{
			"did not start", slog.LevelWarn, "vassal is down",
			[]any{"vassal", "blog", "reason", "no", "lived", time.Duration(0), "next", took},
			Event{Kind: "failed", Vassal: "blog", Message: "vassal is down", Fields: fields{"reason": "no", "lived": "0s", "next": "1.5s"}},
		},
		{
			"state", slog.LevelDebug, "state",
			[]any{"vassal", "blog", "from", Stopped, "to", Starting},
			Event{Kind: "starting", Vassal: "blog", Message: "vassal starting"},
		},
		{"another state", slog.LevelDebug, "state", []any{"vassal", "blog", "from", Starting, "to", Running}, Event{}},
		{"debug", slog.LevelDebug, "traffic", []any{"err", io.EOF}, Event{}},
		{"asked for", slog.LevelInfo, "vassal is running", []any{"vassal", "blog"}, Event{}},
		{
			"unknown warning", slog.LevelWarn, "a hook",
			[]any{"err", errors.New("no\x1b[2J")},
			Event{Kind: "warning", Message: "a hook", Fields: fields{"err": "no\x1b[2J"}},
		},
		{"unknown error", slog.LevelError, "all is lost", nil, Event{Kind: "error", Message: "all is lost"}},
		{"unknown", slog.LevelInfo, "by the way", []any{"bad", "a\xffb"}, Event{Kind: "info", Message: "by the way", Fields: fields{"bad": "a?b"}}},
		{
			"too long", slog.LevelInfo, "vassal found",
			[]any{"vassal", "blog", "file", strings.Repeat("x", 1<<20)},
			Event{Kind: "found", Vassal: "blog", Message: "vassal found", Fields: fields{"file": strings.Repeat("x", eventText-3) + "…"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := openJournal(t, t.TempDir())
			var passed bytes.Buffer
			log := slog.New(j.Handler(slog.NewTextHandler(&passed, nil)))
			log.Log(t.Context(), tc.level, tc.text, tc.args...)
			j.Close()
			if said := passed.Len() > 0; said != (tc.level >= slog.LevelInfo) {
				t.Errorf("the log has %q", passed.String())
			}
			all := onDisk(t, j)
			if tc.want.Kind == "" {
				if len(all) != 0 {
					t.Fatalf("events: %+v", all)
				}
				return
			}
			if len(all) != 1 || all[0].ID != 1 || time.Since(all[0].Time) > time.Minute {
				t.Fatalf("events: %+v", all)
			}
			all[0].ID, all[0].Time = 0, time.Time{}
			if got, want := fmt.Sprintf("%+v", all[0]), fmt.Sprintf("%+v", tc.want); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// What a logger carries is part of its events, and only of its own.
func TestEventsOfDerivedLoggers(t *testing.T) {
	j := openJournal(t, t.TempDir())
	log := slog.New(j.Handler(slog.DiscardHandler))
	hook := log.With("vassal", "blog").With("hook", "a")
	other := log.With("vassal", "shop")
	hook.Warn("hook failed")
	other.Warn("hook failed")
	j.Close()
	all := onDisk(t, j)
	if len(all) != 2 || all[0].Vassal != "blog" || all[0].Fields["hook"] != "a" || all[1].Vassal != "shop" || all[1].Fields != nil {
		t.Errorf("%+v", all)
	}
}

// Every text in the table is one that the code logs.
func TestKindsAreLogged(t *testing.T) {
	var code strings.Builder
	for _, dir := range []string{".", "../cmd/fiefdom", "../tuntap/control", "../firewall/nat", "../vassal", "../internal/responder"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") || filepath.Base(file) == "eventkinds.go" {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
	}
	used := map[string]bool{"starting": true, "failed": true, KindLost: true, "info": true, "warning": true, "error": true}
	for text, kind := range kindOf {
		used[kind] = true
		if kind != "" && Kinds[kind] == "" {
			t.Errorf("kind %q of %q has no meaning", kind, text)
		}
		if kind != "" && !strings.Contains(code.String(), `"`+text+`"`) {
			t.Errorf("nobody logs %q", text)
		}
	}
	for kind := range Kinds {
		if !used[kind] {
			t.Errorf("nothing is a %q", kind)
		}
	}
}

func TestJournalGoesOn(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		j := openJournal(t, dir)
		j.add(Event{Kind: "info", Message: "one"})
		j.add(Event{Kind: "info", Message: "two"})
		j.Close()
	}
	all := onDisk(t, &Journal{file: journalFile{path: journalPath(dir)}})
	for i, ev := range all {
		if ev.ID != uint64(i)+1 {
			t.Errorf("event %d has id %d", i, ev.ID)
		}
	}
	if st, err := os.Stat(journalPath(dir)); err != nil || len(all) != 6 || st.Mode().Perm() != 0o600 {
		t.Errorf("%d events, %v, %v", len(all), st.Mode(), err)
	}
}

// A crash in the middle of a line, and garbage, cost only these lines.
func TestJournalWithTornLines(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	j.add(Event{Kind: "info", Message: "before"})
	j.Close()
	whole, err := os.ReadFile(journalPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	garbage := "\x00\x00\nnull\n[]\n{\"id\":\"x\"}\n" + strings.Repeat("y", 5*eventLine) + "\n"
	for cut := 0; cut < len(whole); cut += 7 {
		if err := os.WriteFile(journalPath(dir), append([]byte(string(whole)+garbage), whole[:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		j := openJournal(t, dir)
		j.add(Event{Kind: "info", Message: "after"})
		j.Close()
		all := onDisk(t, j)
		if n := len(all); n < 2 || all[0].Message != "before" || all[n-1].Message != "after" || all[n-1].ID != 2 {
			t.Fatalf("torn at %d: %+v", cut, all)
		}
	}
}

// The files stay within their bounds, and readers see no gap over a rotation.
func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	const most = 64 << 10
	j.file.most = most
	text := strings.Repeat("x", eventText)
	total := 3 * most / eventText
	for i := range total {
		j.add(Event{Kind: "info", Message: text})
		if i%10 == 9 { // not faster than the disk: that is another test
			settledAt(t, j, uint64(i)+1)
		}
	}
	j.Close()
	size := int64(0)
	for _, name := range []string{"events.jsonl", "events.jsonl.1"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > most {
			t.Errorf("%s has %d bytes", name, st.Size())
		}
		size += st.Size()
	}
	all := onDisk(t, j)
	for i, ev := range all {
		if ev.ID != all[0].ID+uint64(i) {
			t.Fatalf("after %d comes %d", all[i-1].ID, ev.ID)
		}
	}
	if last := all[len(all)-1].ID; last != uint64(total) || size < most {
		t.Errorf("the last is %d of %d; %d bytes are kept", last, total, size)
	}
	if files, _ := filepath.Glob(dir + "/*"); len(files) != 2 {
		t.Errorf("files: %q", files)
	}
	if _, lost := j.Counts(); lost != 0 || j.bytes > journalKept {
		t.Errorf("%d lost, %d bytes in memory", lost, j.bytes)
	}
}

// settledAt waits until an event is on disk.
func settledAt(t *testing.T, j *Journal, id uint64) {
	t.Helper()
	nettest.Eventually(t, 20*time.Second, "the event on disk", func() bool { return j.file.lastID() >= id })
}

// Somebody removes the file to make room: the next events are in a new one.
func TestJournalFileRemoved(t *testing.T) {
	j := openJournal(t, t.TempDir())
	defer j.Close()
	j.add(Event{Kind: "info", Message: "one"})
	settledAt(t, j, 1)
	if err := os.Remove(j.file.path); err != nil {
		t.Fatal(err)
	}
	j.add(Event{Kind: "info", Message: "two"})
	settledAt(t, j, 2)
}

// A full disk costs events, and the journal says how many; nobody waits.
func TestJournalOnFullDisk(t *testing.T) {
	nettest.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("journal", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	j := (&Instance{State: dir}).OpenJournal(slog.New(slog.NewTextHandler(log, nil)))
	defer j.Close()
	const count = 100
	for range count {
		j.add(Event{Kind: "info", Message: strings.Repeat("x", 1000)})
	}
	lost := uint64(0)
	nettest.Eventually(t, 20*time.Second, "lost events", func() bool {
		_, lost = j.Counts()
		return lost+uint64(len(onDisk(t, j))) == count
	})
	if said := strings.Count(log.String(), "events cannot be written"); said != 1 || !strings.Contains(log.String(), "no space left") {
		t.Errorf("the log says it %d times: %s", said, log)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	j.add(Event{Kind: "info", Message: "again"})
	all := settled(t, j, count-int(lost)+2)
	if n := len(all); all[n-2].Message != "again" || all[n-1].Kind != KindLost || all[n-1].Fields["events"] != float64(lost) || lost == 0 {
		t.Errorf("%d lost; the last are %+v", lost, all[n-2:])
	}
}

// A state directory that cannot be written is no reason not to run.
func TestJournalWithoutDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	j := openJournal(t, dir)
	defer j.Close()
	j.add(Event{Kind: "info", Message: "one"})
	nettest.Eventually(t, 20*time.Second, "a lost event", func() bool { _, lost := j.Counts(); return lost == 1 })
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) || err != nil {
		t.Fatal(err)
	}
	j.add(Event{Kind: "info", Message: "two"})
	if all := settled(t, j, 2); all[0].Message != "two" || all[1].Kind != KindLost {
		t.Errorf("%+v", all)
	}
}

func TestJournalLeavesNothing(t *testing.T) {
	nettest.NoLeaks(t)
	for range 10 {
		j := openJournal(t, t.TempDir())
		j.add(Event{Kind: "info", Message: "one"})
		j.Close()
	}
}

func TestLatestEvents(t *testing.T) {
	j := openJournal(t, t.TempDir())
	defer j.Close()
	for i := range 5 {
		j.add(Event{Kind: "died", Vassal: []string{"a", "b"}[i%2], Fields: map[string]any{"n": i}})
	}
	for _, tc := range []struct {
		vassal string
		most   int
		want   []uint64
	}{
		{"", 2, []uint64{5, 4}},
		{"", 100, []uint64{5, 4, 3, 2, 1}},
		{"b", 100, []uint64{4, 2}},
		{"nobody", 100, []uint64{}},
	} {
		ids := []uint64{}
		for _, ev := range j.Latest(tc.vassal, tc.most) {
			ids = append(ids, ev.ID)
		}
		if !slices.Equal(ids, tc.want) {
			t.Errorf("%d of %q: %v, want %v", tc.most, tc.vassal, ids, tc.want)
		}
	}
}
