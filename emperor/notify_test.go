package emperor

import (
	"strings"
	"testing"
	"time"
)

// What an app says is bounded and shown tame, whatever it is.
func TestNotices(t *testing.T) {
	fresh := func() *appNotices {
		return &appNotices{ready: make(chan struct{}), extend: make(chan time.Duration, 1), beat: make(chan struct{}, 1)}
	}
	for message, want := range map[string]string{
		"STATUS=all is well":                  "all is well",
		"STATUS=a\x1b[2J\x00b":                "a?[2J?b",
		"STATUS=\xff\xfe":                     "??",
		"STATUS=" + strings.Repeat("é", 1000): strings.Repeat("é", maxAppText),
		"RELOADING=1\nSTATUS=half":            "reloading: half",
		"STOPPING=1":                          "stopping",
		"STOPPING=1\nREADY=1":                 "",
		"MAINPID=1\nFDSTORE=1\nSTATUS":        "",
		"":                                    "",
	} {
		n := fresh()
		for range 3 { // also more often than anybody reads
			n.take([]byte(message))
		}
		if got := n.says(); got != want {
			t.Errorf("%.40q: says %q, want %q", message, got, want)
		}
	}
	for text, want := range map[string]time.Duration{
		"EXTEND_TIMEOUT_USEC=1000000":              time.Second,
		"EXTEND_TIMEOUT_USEC=9223372036854775807":  maxExtension,
		"EXTEND_TIMEOUT_USEC=99999999999999999999": 0,
		"EXTEND_TIMEOUT_USEC=-1":                   0,
	} {
		n, got := fresh(), time.Duration(0)
		n.take([]byte(text))
		select {
		case got = <-n.extend:
		default:
		}
		if got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
