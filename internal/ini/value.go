package ini

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseBool reads a switch as uWSGI does: everything is true, also nothing,
// except "false", "off", "no" (in any case) and "0".
func ParseBool(s string) bool {
	switch strings.ToLower(s) {
	case "false", "off", "no", "0":
		return false
	}
	return true
}

// ParseInt reads a whole number. Unlike uWSGI, which reads "abc" as 0, it
// refuses what is not a number.
func ParseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return n, nil
}

// ParseDuration reads a time that is not negative: seconds ("10", "0.5"), or
// with a unit ("500ms", "2m").
func ParseDuration(s string) (time.Duration, error) {
	text := s
	if strings.Trim(s, "0123456789.") == "" {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a time; want seconds (10) or a unit (500ms, 2m)", s)
	case d < 0:
		return 0, fmt.Errorf("%q is less than no time", s)
	}
	return d, nil
}

// atoi is C's: blanks, a sign, digits, and 0 for anything else. It saturates.
func atoi(s string) int64 {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	if end < len(s) && (s[0] == '-' || s[0] == '+') {
		end++
	}
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil && n != math.MaxInt64 && n != math.MinInt64 {
		return 0
	}
	return n
}
