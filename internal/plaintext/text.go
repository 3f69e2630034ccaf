package plaintext

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Text is somebody else's word, such as an ini's, as it may go to a terminal:
// control characters but the tab and the line break, what turns the direction of
// writing round, and what is no character at all, are a "?".
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != unicode.ReplacementChar && !unicode.IsControl(r) && !turns(r) {
			return r
		}
		return '?'
	}, s)
}

// turns says whether a character has those behind it written the other way round:
// the embeddings, overrides and isolates of Unicode's bidirectional algorithm.
func turns(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// Line is Text in one line.
func Line(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(Text(s))
}

// Size is a number of bytes in steps of 1024, in at most five columns.
func Size(f float64) string {
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

// Count is a number of things in steps of 1000, in at most five columns.
func Count(n uint64) string {
	units := " kMGTPE"
	f, i := float64(n), 0
	for f >= 10000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return strings.TrimSpace(fmt.Sprintf("%.0f%c", f, units[i]))
}

// Age is how long something took or has been so, in at most four columns.
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
