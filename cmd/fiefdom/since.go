package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"fiefdom/internal/ini"
)

// sinceForms are the forms of --since, for its help.
const sinceForms = "10m (ago), 2d, 14:30, 2026-11-21 14:30, today, yesterday, or RFC 3339"

// parseSince reads a moment as people write it. A time of day is the last such.
func parseSince(s string, now time.Time) (time.Time, error) {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch s {
	case "":
		return time.Time{}, nil
	case "today":
		return midnight, nil
	case "yesterday":
		return midnight.AddDate(0, 0, -1), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := ini.ParseInt(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if at, err := time.Parse(layout, s); err == nil {
			at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location())
			if at.After(now) {
				at = at.AddDate(0, 0, -1)
			}
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: --since: %q is no time; want such as %s", errUsage, s, sinceForms)
}

// hungUp says what an answer that broke off means.
func hungUp(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the emperor hung up: it has ended, or become another program (fiefdom upgrade); ask again")
	}
	return err
}
