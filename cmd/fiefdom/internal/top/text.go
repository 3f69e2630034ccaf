package top

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// fit is a text in exactly so many columns.
func fit(s string, width int, right bool) string {
	s = ansi.Truncate(s, max(width, 0), "…")
	space := strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
	if right {
		return space + s
	}
	return s + space
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
