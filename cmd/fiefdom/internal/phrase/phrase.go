// Package phrase writes numbers, ages and other people's texts as the screens of
// this program show them.
package phrase

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Clean is somebody else's text, such as a name or a log, as it may be shown: in
// one line, and without anything that steers a terminal or the direction of what
// stands beside it.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return '?'
		}
		return r
	}, s)
}

// Bytes is a number of bytes in steps of 1024, at most five columns.
func Bytes(f float64) string {
	units := "BKMGTPE"
	i := 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 10 {
		return fmt.Sprintf("%.0f%c", f, units[i])
	}
	return fmt.Sprintf("%.1f%c", f, units[i])
}

// Count is a number of things in at most five columns.
func Count(n uint64) string {
	units := " kMGTPE"
	f, i := float64(n), 0
	for f >= 10000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return strings.TrimSpace(fmt.Sprintf("%.0f%c", f, units[i]))
}

// Age is how long something has been, in the largest unit that says it.
func Age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Grown is how much a counter grew. One that fell began anew.
func Grown[T uint64 | float64](before, now T) T {
	if now < before {
		return now
	}
	return now - before
}

// Fields are what an event has besides its message: " key=value" of each, by key.
// They are somebody else's text.
func Fields(fields map[string]any) string {
	var s strings.Builder
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		text := field(fields[key])
		if text == "" || strings.ContainsAny(text, " \t\n\"=") {
			text = strconv.Quote(text)
		}
		s.WriteString(" " + key + "=" + text)
	}
	return s.String()
}

func field(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, field(x))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v)
}
