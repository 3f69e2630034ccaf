package ini

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var besideFiles = map[string]string{
	"blog.ini":   "[uwsgi]\nvassal_name = %n\nown = %N %d %(k) %(key) %(bkey) %(include)\nlate = %(vn)\n",
	"b.ini":      "[uwsgi]\nbkey = b %d %(vassal_name) %(key)\nfor = 1 2\nloop = %(_)\nendfor =\n",
	"a.ini":      "[uwsgi]\nvn = %N\nakey = %d %s %(vassal_name)\ninclude = %dnested.ini\nbkey = second\n",
	"nested.ini": "[uwsgi]\nnested = %s %N\n",
	"ib.ini":     "[uwsgi]\nib = %s %(vassal_name)\n",
	"ia.ini":     "[uwsgi]\nia = %s %N\n",
}

// besideArgs is the order of a vassal's command line under uWSGI's emperor.
var besideArgs = []string{
	"--inherit", "ib.ini", "--include", "b.ini", "--set", "key=%(vassal_name)", "--set", "k=100%n",
	"--ini", "blog.ini", "--inherit", "ia.ini", "--include", "a.ini",
}

func besideOptions(dir string) Options {
	o := Options{Dir: dir, Sections: []string{"uwsgi"}}
	at := &o.Before
	for i := 0; i < len(besideArgs); i += 2 {
		key, value := strings.TrimPrefix(besideArgs[i], "--"), besideArgs[i+1]
		if key == "ini" {
			at = &o.After
			continue
		}
		*at = append(*at, Pair{Key: key, Value: value, Pos: Pos{File: "/emperor.ini", Line: i}})
	}
	return o
}

func writeBeside(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range besideFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Options beside the file act in the order in which uWSGI's emperor gives them.
func TestBesideIsTheCommandLine(t *testing.T) {
	u := findUWSGI(t)
	dir := writeBeside(t)
	cmd := exec.Command(u.binary, append([]string{"--show-config"}, besideArgs...)...)
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput() // it exits for want of a socket
	want, ok := configOf(string(out), "blog.ini")
	if !ok {
		t.Fatalf("%s", out)
	}
	want = strings.Replace(want, "show-config = true\n", "", 1)
	want = strings.Replace(want, "ini = blog.ini\n", "", 1)
	f, err := Load("blog.ini", besideOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := render(f.Pairs); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// In files beside the first one %n is the first one's name, in those that they
// include as well; their own would be the same for everybody. The capitals are
// the first one's before it is read, too.
func TestBesideNames(t *testing.T) {
	dir := writeBeside(t)
	for name, text := range map[string]string{
		"b.ini":      "[uwsgi]\nb = %n %N %s %c\n",
		"a.ini":      "[uwsgi]\na = %n %N %s\ninclude = nested.ini\n",
		"nested.ini": "[uwsgi]\nnested = %n %s\n",
		"ia.ini":     "[uwsgi]\nia = %n %s\n",
		"ib.ini":     "[uwsgi]\nib = %n\ninherit = nested.ini\n",
		"own.ini":    "[uwsgi]\nown = %n\n",
		"blog.ini":   "[uwsgi]\nblog = %n\ninclude = own.ini\ninherit = own.ini\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Load("blog.ini", besideOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, p := range f.Pairs {
		got[p.Key+" = "+p.Value] = true
	}
	for _, line := range []string{
		"b = blog blog b.ini " + filepath.Base(dir), "a = blog blog a.ini", "nested = blog nested.ini",
		"ia = blog ia.ini", "ib = blog", "own = own", "blog = blog",
	} {
		if !got[line] {
			t.Errorf("nothing says %q: %s", line, render(f.Pairs))
		}
	}
	if got["nested = nested nested.ini"] || got["own = blog"] {
		t.Errorf("%s", render(f.Pairs))
	}
}

// What is wrong beside the file has its own place; a name that would be a line
// of the configuration ends the load before anything is read.
func TestBesideErrors(t *testing.T) {
	dir := writeBeside(t)
	o := Options{Dir: dir, Before: []Pair{{Key: "include", Value: "none.ini", Pos: Pos{"/etc/emperor.ini", 7}}}}
	if _, err := Load("blog.ini", o); err == nil || !strings.HasPrefix(err.Error(), "/etc/emperor.ini:7: cannot read none.ini: ") {
		t.Errorf("%v", err)
	}
	if _, err := Load("a\nb.ini", besideOptions(dir)); err == nil || !strings.Contains(err.Error(), "line break") {
		t.Errorf("%v", err)
	}
}
