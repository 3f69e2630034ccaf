package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
)

func TestParseSince(t *testing.T) {
	here := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 11, 21, 14, 30, 10, 5e8, here)
	for s, want := range map[string]string{
		"10m":                  "2026-11-21T14:20:10.5+02:00",
		"1h30m":                "2026-11-21T13:00:10.5+02:00",
		"90s":                  "2026-11-21T14:28:40.5+02:00",
		"2d":                   "2026-11-19T14:30:10.5+02:00",
		"14:30":                "2026-11-21T14:30:00+02:00",
		"14:30:10":             "2026-11-21T14:30:10+02:00",
		"14:31":                "2026-11-20T14:31:00+02:00",
		"00:00":                "2026-11-21T00:00:00+02:00",
		"2026-11-20":           "2026-11-20T00:00:00+02:00",
		"2026-11-20 23:59":     "2026-11-20T23:59:00+02:00",
		"2026-11-20 23:59:58":  "2026-11-20T23:59:58+02:00",
		"2026-11-20T23:59:58Z": "2026-11-20T23:59:58Z",
		"today":                "2026-11-21T00:00:00+02:00",
		"yesterday":            "2026-11-20T00:00:00+02:00",
		"":                     "0001-01-01T00:00:00Z",
		"-10m":                 "",
		"25:00":                "",
		"soon":                 "",
		"10":                   "",
		"2026-13-01":           "",
		"-1d":                  "",
	} {
		at, err := parseSince(s, now)
		if got := at.Format(time.RFC3339Nano); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %s, %v; want %q", s, got, err, want)
		}
	}
}

func TestLogPrinter(t *testing.T) {
	at := time.Date(2026, 11, 21, 14, 30, 10, 5e6, time.UTC)
	for name, tc := range map[string]struct {
		json, times bool
		want        string
	}{
		"plain": {false, false, "a?[2J b\n"},
		"times": {false, true, "2026-11-21 14:30:10.005 a?[2J b\n"},
		"JSON":  {true, true, `{"time":"2026-11-21T14:30:10.005Z","text":"a\u001b[2J b"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := logPrinter(&b, tc.json, tc.times)(emperor.LogLine{Time: at, Text: "a\x1b[2J b"}); err != nil || b.String() != tc.want {
				t.Errorf("%q, %v", b.String(), err)
			}
		})
	}
}

// An emperor who ends in the middle of an answer is told as that.
func TestHungUp(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, emperor.APISocket))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"text":"one"}`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { server.Close(); <-done }()
	var b strings.Builder
	err = hungUp(emperor.NewClient(dir).LogLines(t.Context(), "blog", emperor.LogQuery{Follow: true}, logPrinter(&b, false, false)))
	if b.String() != "one\n" || err == nil || !strings.Contains(err.Error(), "the emperor hung up") {
		t.Errorf("%q, %v", b.String(), err)
	}
}
