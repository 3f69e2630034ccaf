package emperor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// withJournal gives a realm's emperor a journal.
func withJournal(t *testing.T) func(*Emperor) {
	return func(e *Emperor) {
		e.Journal = e.Instance.OpenJournal(e.Log)
		t.Cleanup(e.Journal.Close)
		e.Log = slog.New(e.Journal.Handler(e.Log.Handler()))
	}
}

// kindsOf are the kinds of a vassal's events, in order.
func (r *realm) kindsOf(t *testing.T, vassal string) (kinds []string) {
	t.Helper()
	err := r.Events(t.Context(), EventQuery{Vassal: vassal}, func(ev Event) error {
		kinds = append(kinds, ev.Kind)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

func TestEventsOfALife(t *testing.T) {
	r := newRealm(t, withJournal(t))
	r.write(t, "blog", stays)
	s := r.awaitState(t, "blog", Running)
	if err := r.Events(t.Context(), EventQuery{Vassal: "blog"}, func(ev Event) error {
		if ev.Kind == "running" && ev.Fields["pid"] != float64(s.PID) {
			t.Errorf("%+v, want pid %d", ev, s.PID)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do(t.Context(), "blog", "stop"); err != nil {
		t.Fatal(err)
	}
	r.write(t, "blog", "[uwsgi]\ncommand = /bin/true\nuid = nobody at all\n")
	nettest.Eventually(t, 20*time.Second, "a bad ini", func() bool { return slices.Contains(r.kindsOf(t, "blog"), "invalid") })
	if err := os.Remove(filepath.Join(r.dir, "blog.ini")); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 20*time.Second, "the end", func() bool { return slices.Contains(r.kindsOf(t, "blog"), "gone") })
	want := "found starting running stopping stopped changed invalid removed gone"
	if got := strings.Join(r.kindsOf(t, "blog"), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// An owner sees the events of what was his then, and nobody else's.
func TestEventsAreTheOwners(t *testing.T) {
	r := newRealm(t, withJournal(t))
	r.write(t, "his", stays)
	if err := os.Chown(filepath.Join(r.dir, "his.ini"), 61200, 61200); err != nil {
		t.Fatal(err)
	}
	r.write(t, "other", stays)
	r.awaitState(t, "other", Running)
	r.await(t, "his", "its owner's", func(Status) bool {
		code, _ := r.as(t, 61200, "GET", "/vassals/his")
		return code == http.StatusOK
	})
	his := func(uid int) (vassals []string) {
		code, body := r.as(t, uid, "GET", "/events")
		if code != http.StatusOK {
			t.Fatalf("%d: %s", code, body)
		}
		for line := range strings.Lines(strings.TrimSpace(body)) {
			var ev Event
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if uid != 0 && ev.Owner != uint32(uid) {
				t.Errorf("uid %d sees %s", uid, line)
			}
			if !slices.Contains(vassals, ev.Vassal) {
				vassals = append(vassals, ev.Vassal)
			}
		}
		return vassals
	}
	r.Log.Warn("by the way")
	r.Log.Warn("to him", "vassal", "his")
	if got := fmt.Sprintf("%q", his(61200)); got != `["his"]` {
		t.Errorf("the owner sees %s", got)
	}
	if got := his(61201); len(got) != 0 {
		t.Errorf("a stranger sees %q", got)
	}
	if got := his(0); !slices.Contains(got, "his") || !slices.Contains(got, "other") || !slices.Contains(got, "") {
		t.Errorf("root sees %q", got)
	}
	// Another's ini under the same name: what was, stays the first one's.
	if err := os.Chown(filepath.Join(r.dir, "his.ini"), 61201, 61201); err != nil {
		t.Fatal(err)
	}
	r.Scan()
	nettest.Eventually(t, 20*time.Second, "the new owner's events", func() bool {
		r.Log.Warn("to the new one", "vassal", "his")
		return len(his(61201)) > 0
	})
	his(61200) // checks owners
}

// journalServer serves the events of an emperor that has nothing but a journal.
func journalServer(t *testing.T) (*Emperor, *httptest.Server) {
	t.Helper()
	e := &Emperor{Journal: openJournal(t, t.TempDir())}
	e.make()
	s := httptest.NewUnstartedServer(brisk(e.routes()))
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, uint32(0))
	}
	s.Start()
	t.Cleanup(func() { close(e.stopped); s.Close(); e.Journal.Close() })
	return e, s
}

func TestEventsSinceAndFollow(t *testing.T) {
	e, s := journalServer(t)
	begin := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for i := range 10 {
		e.Journal.add(Event{Time: begin.Add(time.Duration(i) * time.Minute), Kind: "info", Message: fmt.Sprint(i), Vassal: []string{"blog", "shop"}[i%2]})
	}
	get := func(query string) (int, string) {
		resp, err := http.Get(s.URL + "/events" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			return resp.StatusCode, string(body)
		}
		said := ""
		for line := range strings.Lines(string(body)) {
			var ev Event
			if err := json.Unmarshal([]byte(line), &ev); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			said += ev.Message
		}
		return resp.StatusCode, said
	}
	for _, tc := range []struct {
		query string
		code  int
		want  string
	}{
		{"", 200, "0123456789"},
		{"?vassal=shop", 200, "13579"},
		{"?vassal=nobody", 200, ""},
		{"?since=2026-01-31T12:07:00Z", 200, "789"},
		{"?since=2026-01-31T13:07:00%2B01:00&vassal=blog", 200, "8"},
		{"?since=yesterday", 400, "since=yesterday: want a time as in RFC 3339, such as 2026-01-31T12:00:00Z\n"},
	} {
		if code, got := get(tc.query); code != tc.code || got != tc.want {
			t.Errorf("%q: %d %q, want %d %q", tc.query, code, got, tc.code, tc.want)
		}
	}
	resp, err := http.Get(s.URL + "/events?follow&since=2026-01-31T12:09:00Z")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{"9", "next", "last"} {
		if want != "9" {
			e.Journal.add(Event{Time: time.Now(), Kind: "info", Message: want})
		}
		var ev Event
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &ev) != nil || ev.Message != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
}

// What memory has forgotten comes from the file, without a gap or a repetition.
func TestEventsOlderThanMemory(t *testing.T) {
	e, s := journalServer(t)
	const total = 3 * journalKept / eventText
	for i := range total {
		e.Journal.add(Event{Time: time.Now(), Kind: "info", Message: strings.Repeat("x", eventText)})
		if i%400 == 399 {
			settledAt(t, e.Journal, uint64(i)+1)
		}
	}
	resp, err := http.Get(s.URL + "/events?follow&since=2026-01-31T12:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	for want := uint64(1); want <= total; want++ {
		var ev Event
		if err := events.Decode(&ev); err != nil || ev.ID != want {
			t.Fatalf("got %d, %v; want %d", ev.ID, err, want)
		}
	}
}

// T53: however many watch, and however slowly, memory stays bounded, events are
// not held up, and those that there is no place for are told.
func TestManyWatchersSoak(t *testing.T) {
	r := newRealm(t, withJournal(t))
	count := scaled(300, 10000)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := heap()
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	for range count {
		c, err := net.Dial("unix", r.Instance.Path(APISocket))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, "GET /events?follow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	served, refused := 0, 0
	for _, c := range conns {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case err != nil:
			t.Fatal(err)
		case resp.StatusCode == http.StatusOK:
			served++
		case resp.StatusCode == http.StatusServiceUnavailable:
			refused++
		}
	}
	if served != watchers || refused != count-watchers {
		t.Errorf("%d watch and %d are refused, want %d and %d", served, refused, watchers, count-watchers)
	}
	// Nobody reads from now on.
	for range 2 * journalKept / eventText {
		r.Journal.add(Event{Time: time.Now(), Kind: "info", Message: strings.Repeat("x", eventText)})
	}
	nettest.Eventually(t, 60*time.Second, "those who do not read to be left", func() bool { return r.watching.Load() == 0 })
	for _, c := range conns {
		c.Close()
	}
	grown := int64(heap()) - int64(before)
	t.Logf("%d bytes more", grown)
	if grown > 64<<20 {
		t.Errorf("%d watchers cost %d bytes", count, grown)
	}
}

// Users who take all places among those who follow keep root from nothing.
func TestRootWatchesBesideOthers(t *testing.T) {
	r := newRealm(t, withJournal(t))
	r.othersWatching.Store(watchers)
	ctx, cancel := context.WithCancel(t.Context())
	r.Log.Info("begin")
	seen := false
	err := r.Events(ctx, EventQuery{Follow: true, Since: time.Now().Add(-time.Hour)}, func(ev Event) error {
		if ev.Message == "begin" {
			seen = true
			cancel()
		}
		return nil
	})
	if !seen {
		t.Errorf("root was kept out: %v", err)
	}
}

func TestEventsEndWithTheEmperor(t *testing.T) {
	r := newRealm(t, withJournal(t))
	done := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		done <- r.Events(context.Background(), EventQuery{Follow: true, Since: time.Now().Add(-time.Hour)}, func(ev Event) error {
			if ev.Message == "begin" {
				close(begun)
			}
			return nil
		})
	}()
	r.Log.Info("begin")
	<-begun
	r.end()
	if err := <-done; err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// Who reads too slowly is told how much he missed, and goes on with the rest.
func TestSlowWatcherIsTold(t *testing.T) {
	j := openJournal(t, t.TempDir())
	defer j.Close()
	const total = 2 * journalKept / eventText
	for range total {
		j.add(Event{Time: time.Now(), Kind: "info", Message: strings.Repeat("x", eventText)})
	}
	w := httptest.NewRecorder()
	s := eventStream{w: w, conn: http.NewResponseController(flusher{w}), wants: func(stamp) bool { return true }}
	s.copy(t.Context(), j, false, nil)
	var first, next Event
	events := json.NewDecoder(w.Body)
	if err := errors.Join(events.Decode(&first), events.Decode(&next)); err != nil {
		t.Fatal(err)
	}
	if missed := first.Fields["events"]; first.Kind != KindLost || missed != float64(next.ID-1) || next.ID < 2 || s.id < total { // behind them comes what the disk missed, if it did
		t.Errorf("%+v, then %d, up to %d", first, next.ID, s.id)
	}
}

// flusher is a recorder that deadlines mean nothing to.
type flusher struct{ *httptest.ResponseRecorder }

func (flusher) SetWriteDeadline(time.Time) error { return nil }
