package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fiefdom/emperor"
	"fiefdom/internal/ini"
)

// What new writes gives back the very command, or it writes nothing.
func TestNewQuotesEveryCommand(t *testing.T) {
	dir := t.TempDir()
	written := 0
	try := func(argv []string) {
		t.Helper()
		path, err := scaffold(dir, "x", argv, nil)
		if err != nil {
			if !strings.Contains(err.Error(), "cannot stand in an ini") {
				t.Fatalf("%q: %v", argv, err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Fatalf("%q: %v is left", argv, left)
			}
			return
		}
		written++
		c, errs := emperor.ReadVassal("x", path, nil)
		// What looks like a shell's word is warned of in any ini.
		errs = slices.DeleteFunc(errs, func(e ini.Error) bool { return e.Warning && strings.Contains(e.Message, "no shell runs") })
		if len(errs) > 0 || !slices.Equal(c.Command, argv) {
			t.Fatalf("%q became %q (%v)", argv, c.Command, errs)
		}
		if err := os.Remove(path); err != nil {
			t.Fatalf("%v", err)
		}
	}
	for _, argv := range [][]string{
		{"true"},
		{"echo", "", " ", "a b", "it's", `"quoted"`, `back\slash`, `end\`, "tab\tthere"},
		{"echo", "%n", "%%", "100%", "%", "%(x)", "%[", "$(HOME)", "$HOME", "@(exec://id)", "@(", "$", "a@b.c", "%%n%"},
		{"echo", "no # comment", "#", "# me", "# #", "#no", ";no", "[no]", "a=b", "=", "'", "''", `\'`, "`id`", "*", "~", "ä€😀"},
		{"sh", "-c", "while :; do date; sleep 1; done | tee '/tmp/x y' && echo \"$1\""},
		{"env", "A=%(b)", "[uwsgi]", "NAME", "COMMAND"},
	} {
		before := written
		if try(argv); written == before {
			t.Errorf("%q was refused", argv)
		}
	}
	for _, argv := range [][]string{{"echo", "a\nb"}, {"echo", "\x00"}, {"echo", "\xff"}, {"echo", strings.Repeat("x", 1<<20)}} {
		before := written
		if try(argv); written != before {
			t.Errorf("%.20q… was written", argv)
		}
	}
	before := written
	for range 200 {
		try(drawCommand())
	}
	if written-before < 40 {
		t.Errorf("only %d of the random commands were written", written-before)
	}
}

// drawCommand is echo with up to four words, some of what is special in an ini or a
// shell, some of any characters. (Package rapid would do it too, but each process of
// this test binary would begin by making its tables.)
func drawCommand() []string {
	special := []rune(`%$@()'"\ ab#;=[]`)
	argv := []string{"echo"}
	for range rand.IntN(5) {
		anything, word := rand.IntN(2) == 0, []rune(nil)
		for range rand.IntN(12) {
			r := special[rand.IntN(len(special))]
			if anything {
				r = rand.Int32N(1 << (4 + rand.IntN(17))) // small ones as often as big ones
			}
			word = append(word, r)
		}
		argv = append(argv, string(word))
	}
	return argv
}

// An app whose command names files of the folder that one is in begins there.
func TestNewBeginsWhereItsFilesAre(t *testing.T) {
	dir, here := t.TempDir(), filepath.Join(t.TempDir(), "100%")
	if err := os.Mkdir(here, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(here, "app.py"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(here)
	for name, tt := range map[string]struct {
		argv []string
		want string
	}{
		"script":   {[]string{"cat", "-u", "app.py"}, here},
		"program":  {[]string{"./app.py"}, here},
		"value":    {[]string{"cat", "--app=app.py"}, here},
		"folder":   {[]string{"ls", "."}, here},
		"absolute": {[]string{"cat", filepath.Join(here, "app.py")}, ""},
		"no file":  {[]string{"cat", "8000", "-", "--app=", ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := scaffold(dir, strings.ReplaceAll(name, " ", "-"), tt.argv, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c, errs := emperor.ReadVassal("x", path, nil); len(errs) > 0 || c.Chdir != tt.want {
				t.Errorf("it begins in %q (%v), want %q", c.Chdir, errs, tt.want)
			}
		})
	}
}

// What is to be published stands in the ini, and what is no port is refused
// before anything is written.
func TestNewPublishes(t *testing.T) {
	dir := t.TempDir()
	path, err := scaffold(dir, "blog", []string{"true"}, []string{"8080:8000", "127.0.0.1:53:53/udp"})
	if err != nil {
		t.Fatal(err)
	}
	c, errs := emperor.ReadVassal("blog", path, nil)
	if len(errs) > 0 || len(c.Publish) != 2 || c.Publish[0].String() != "8080:8000/tcp" || c.Publish[1].String() != "127.0.0.1:53:53/udp" {
		t.Errorf("%v, %v", c.Publish, errs)
	}
	if path, err = scaffold(dir, "shop", []string{"true"}, []string{"http"}); !errors.Is(err, errUsage) {
		t.Errorf("%s, %v", path, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "shop.ini")); err == nil {
		t.Error("it is written all the same")
	}
}

// Each line that waits in a comment is fit to be taken.
func TestNewSuggestsWhatIsFit(t *testing.T) {
	text := scaffoldText("blog", []string{"true"}, "", nil)
	text = strings.NewReplacer("/srv/blog", "/", "www-data", "nobody").Replace(text)
	text = strings.Replace(text, "gid = nobody", "gid = nogroup", 1)
	path := filepath.Join(t.TempDir(), "blog.ini")
	suggestion := regexp.MustCompile(`(?m)^;([a-z])`)
	if n := len(suggestion.FindAllString(text, -1)); n < 8 {
		t.Errorf("%d lines wait in comments", n)
	}
	if err := os.WriteFile(path, []byte(suggestion.ReplaceAllString(text, "$1")), 0o644); err != nil {
		t.Fatal(err)
	}
	c, errs := emperor.ReadVassal("blog", path, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if c.Chdir != "/" || c.LogTo != "/var/log/blog.log" || len(c.Env) != 1 || c.UID == nil || len(c.Devices) != 1 {
		t.Errorf("%+v", c)
	}
}
