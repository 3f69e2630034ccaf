package main

import (
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
