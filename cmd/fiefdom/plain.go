package main

import (
	"strings"
	"unicode"
)

// plain is a text that is somebody else's word, such as an ini's, as it may go
// to a terminal: what could steer one, control characters but the line break and
// what is no character at all, is a "?".
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != unicode.ReplacementChar && !unicode.IsControl(r) {
			return r
		}
		return '?'
	}, s)
}
