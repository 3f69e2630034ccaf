package top

import (
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
