package main

import (
	"bytes"
	"strings"
	"testing"

	"fiefdom/emperor"
)

// What a tenant writes into an ini does not steer the terminal of whoever looks
// at his vassal. // T46
func TestStatusIsPlain(t *testing.T) {
	const trick = "\x1b]0;mine\x07"
	s := emperor.Status{
		Name: "blog", File: "blog.ini", State: emperor.Invalid, Error: "socket " + trick, Command: []string{"printf", trick},
		Socket: "@" + trick, Warnings: []string{"option " + trick},
	}
	var out bytes.Buffer
	printStatus(&out, s, "")
	if err := table(&out, []emperor.Status{s}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07") {
		t.Errorf("%q", out.String())
	}
}
