package ini

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const editable = "[uwsgi]\r\n; a comment\r\nrule  =  one \r\n\r\n\trule=%(two)\r\nother = x \\\r\nlast = 1"

// A change is of one line; all other bytes stay, and so do owner and mode.
func TestChange(t *testing.T) {
	rule := func(p Pair) bool { return p.Key == "rule" }
	one := func(p Pair) bool { return p == Pair{Key: "rule", Value: "one"} }
	for _, c := range []struct {
		name   string
		file   string
		change Change
		line   int
		want   string // a part of the file, or of the error
	}{
		{"behind a line", editable, Change{Line: 3, Is: one, Text: "rule = new"}, 4, "one \r\nrule = new\r\n\r\n\trule"},
		{"before a line with a placeholder", editable, Change{Line: 5, Is: rule, Before: true, Text: "rule = new"}, 5, "\r\n\r\nrule = new\r\n\trule=%(two)"},
		{"behind a last line without an end", editable, Change{Line: 7, Is: func(p Pair) bool { return p.Key == "last" }, Text: "rule = new"}, 8, "last = 1\r\nrule = new"},
		{"removed", editable, Change{Line: 3, Is: one, Remove: true}, 3, "comment\r\n\r\n\trule"},
		{"at the end", editable + "\r\n", Change{Text: "rule = new"}, 8, "last = 1\r\nrule = new\r\n"},
		{"into an empty section", "[uwsgi]", Change{Text: "rule = new"}, 2, "[uwsgi]\nrule = new"},
		{"another line by now", editable, Change{Line: 2, Is: one, Remove: true}, 0, "line 2 is not what it was"},
		{"past the end", editable, Change{Line: 70, Is: one, Remove: true}, 0, "line 70 is not what it was"},
		{"one that goes on", editable, Change{Line: 6, Is: func(Pair) bool { return true }, Text: "x"}, 0, "line 6 is not"},
		{"several sections", editable + "\n[more]\n", Change{Text: "rule = new"}, 0, "2 sections"},
		{"a loop", "[uwsgi]\nfor = a b\nrule = one\nendfor =\n", Change{Line: 3, Is: one, Remove: true}, 0, "conditions or loops (for)"},
		{"a condition", "[uwsgi]\nif-not-env = X\nrule = one\nendif =\n", Change{Line: 3, Is: one, Remove: true}, 0, "conditions or loops (if-not-env)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.ini")
			if err := os.WriteFile(path, []byte(c.file), 0o640); err != nil {
				t.Fatal(err)
			}
			line, undo, err := c.change.Apply(path)
			now, rerr := os.ReadFile(path)
			st, serr := os.Stat(path)
			if rerr != nil || serr != nil || st.Mode().Perm() != 0o640 {
				t.Fatal(rerr, serr, st.Mode())
			}
			if c.line == 0 {
				if err == nil || !strings.Contains(err.Error(), c.want) || string(now) != c.file {
					t.Errorf("%v; want %q, and\n%s", err, c.want, now)
				}
				return
			}
			if err != nil || line != c.line || !strings.Contains(string(now), c.want) {
				t.Fatalf("%v, line %d:\n%q\nwant line %d and %q", err, line, now, c.line, c.want)
			}
			if got := len(now) - len(c.file); !c.change.Remove && got != len(c.change.Text)+1 && got != len(c.change.Text)+2 {
				t.Errorf("%d bytes more for %q", got, c.change.Text)
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			if back, err := os.ReadFile(path); err != nil || string(back) != c.file {
				t.Errorf("taken back: %v\n%q", err, back)
			}
			if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
				t.Errorf("left over: %v, %v", list, err)
			}
		})
	}
}

// Files that others could have put there, or that have other names, are left alone.
func TestChangeOfWhatIsNotOurs(t *testing.T) {
	change := Change{Text: "rule = new"}
	refused := func(what, path, want string) {
		t.Helper()
		if _, _, err := change.Apply(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", what, err, want)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.ini")
	if err := os.WriteFile(path, []byte("[uwsgi]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string, string) error{"soft.ini": os.Symlink, "hard.ini": os.Link} {
		if err := make(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	refused("a link", filepath.Join(dir, "soft.ini"), "symbolic link")
	refused("a file of two names", path, "one name")
	refused("no file", filepath.Join(dir, "none.ini"), "no such file")
	if err := os.Remove(filepath.Join(dir, "hard.ini")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("a folder of everybody's", path, "others than root can write there")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := change.Apply(path); err != nil {
		t.Error(err)
	}
	// What somebody else writes meanwhile stays.
	lines, st, err := readLines(path)
	if err == nil {
		err = os.WriteFile(path, []byte("[uwsgi]\nrule = theirs\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replace(path, st, lines); err == nil || !strings.Contains(err.Error(), "somebody else is changing it") {
		t.Errorf("replaced: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "[uwsgi]\nrule = theirs\n" {
		t.Errorf("theirs became %q", b)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1234, 0); err != nil {
			t.Fatal(err)
		}
		refused("a folder of another's", path, "others than root")
	}
}
