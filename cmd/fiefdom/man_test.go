//go:build man

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command that a user sees has a page, and every option stands in one.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if out, err := asFiefdom("man", dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	read := func(page string) string {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	pages := 0
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		pages++
		if text := read(strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"); !strings.Contains(text, ".SH NAME") {
			t.Errorf("the page of %s has no name", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	if pages < 15 {
		t.Errorf("only %d pages", pages)
	}
	options := read("fiefdom.ini.5")
	for _, d := range allDocs() {
		if !strings.Contains(options, "\n\\fB"+manText(d.Name)) {
			t.Errorf("fiefdom.ini(5) lacks %s", d.Name)
		}
	}
	for line := range strings.SplitSeq(options, "\n") {
		if word, _, _ := strings.Cut(line, " "); strings.HasPrefix(line, ".") && !strings.Contains(".TH .SH .PP .B .TP", word) || strings.HasPrefix(line, "'") {
			t.Errorf("roff would take this line for a request: %s", line)
		}
	}
}
