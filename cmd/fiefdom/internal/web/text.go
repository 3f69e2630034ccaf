package web

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// count is a number of things in at most five columns.
func count(n uint64) string {
	units := " kMGTPE"
	f, i := float64(n), 0
	for f >= 10000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return strings.TrimSpace(fmt.Sprintf("%.0f%c", f, units[i]))
}

// grown is how much a counter grew. One that fell began anew.
func grown[T uint64 | float64](before, now T) T {
	if now < before {
		return now
	}
	return now - before
}

// fieldsText is what an event has besides its message: " key=value" of each, by key.
// It is somebody else's text.
func fieldsText(fields map[string]any) string {
	var s strings.Builder
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		text := fieldValue(fields[key])
		if text == "" || strings.ContainsAny(text, " \t\n\"=") {
			text = strconv.Quote(text)
		}
		s.WriteString(" " + key + "=" + text)
	}
	return s.String()
}

func fieldValue(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		var all []string
		for _, x := range v {
			all = append(all, fieldValue(x))
		}
		return strings.Join(all, ",")
	}
	return fmt.Sprint(v)
}
