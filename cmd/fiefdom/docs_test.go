package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)

func TestLinksOfDocumentsResolve(t *testing.T) {
	const root = "../.."
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(root, "docs", "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ofExamples, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, deeper...), ofExamples...)
	pages = append(pages, filepath.Join(root, "examples", "README.md"))
	pages = append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "CHANGELOG.md"))
	followed := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			followed++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
	if followed < 8 {
		t.Errorf("followed only %d links", followed)
	}
}

// The commands that the README shows exist, with the flags that it gives them.
func TestCommandsOfTheReadmeExist(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^# fiefdom (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(shown) < 5 {
		t.Fatalf("found only %d commands", len(shown))
	}
	for _, m := range shown {
		cmd, rest, err := newRoot().Find(strings.Fields(m[1]))
		if err != nil || !cmd.HasParent() {
			t.Errorf("fiefdom %s: %v", m[1], err)
			continue
		}
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("fiefdom %s: %v", m[1], err)
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			t.Errorf("fiefdom %s: %v", m[1], err)
		}
	}
}
