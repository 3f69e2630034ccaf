package vassal

import (
	"regexp"
	"strings"
	"testing"

	"fiefdom/internal/ini"
)

// Who writes Docker's words is told ours, and these are such.
func TestWordsOfDocker(t *testing.T) {
	quoted := regexp.MustCompile(`"([a-z-]+)"`)
	for word, hint := range dockersWords {
		if Known(word) {
			t.Errorf("%s is known; the hint is never shown", word)
		}
		for _, name := range quoted.FindAllStringSubmatch(hint, -1) {
			if !Known(name[1]) {
				t.Errorf("%s: nobody knows %q either", word, name[1])
			}
		}
	}
	f := &ini.File{Name: "blog.ini", Pairs: []ini.Pair{
		{Key: "command", Value: "/bin/true", Pos: ini.Pos{File: "blog.ini", Line: 1}}, {Key: "ports", Value: "8080:80", Pos: ini.Pos{File: "blog.ini", Line: 2}},
	}}
	_, errs := Parse("blog", f)
	if want := `blog.ini:2: unknown option "ports"; did you mean "publish"?`; errs.Failed() || !strings.Contains(errs.Error(), want) {
		t.Errorf("got %v, want %s", errs, want)
	}
}
