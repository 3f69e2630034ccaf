package top

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// clean is somebody else's text, such as a name or a log, as it may go to a
// terminal: in one line, and without anything that steers it.
func clean(s string) string {
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

// fit is a text in exactly so many columns.
func fit(s string, width int, right bool) string {
	s = ansi.Truncate(s, max(width, 0), "…")
	space := strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
	if right {
		return space + s
	}
	return s + space
}

// bytesText is a number of bytes in steps of 1024, at most five columns.
func bytesText(f float64) string {
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

// count is a number of things in at most five columns.
func count(n uint64) string {
	units := " kMGTPE"
	f, i := float64(n), 0
	for f >= 10000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return strings.TrimSpace(fmt.Sprintf("%.0f%c", f, units[i]))
}

func age(d time.Duration) string {
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
