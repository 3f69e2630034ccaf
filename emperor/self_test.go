package emperor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSelf(t *testing.T) {
	r := newRealm(t, nil)
	s, err := r.Client.Self(t.Context())
	if err != nil || s.PID != os.Getpid() || s.Goroutines < 2 || s.Instance != "test" || !slices.Equal(s.Folders, []string{r.dir}) {
		t.Errorf("%+v, %v; the emperor's pid is %d, his folder %s", s, err, os.Getpid(), r.dir)
	}
}

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "one.ini")
	write(t, file, "")
	t.Chdir(dir)
	c := &Config{Monitors: []Monitor{
		{Pattern: dir + "/*/app.ini"}, {Dir: file}, {Dir: dir, Section: "x"}, {Dir: filepath.Join(dir, "none")}, {Dir: "."}, {Dir: "/"},
	}}
	if got := c.Folders(); !slices.Equal(got, []string{dir, "/"}) {
		t.Errorf("%q", got)
	}
}
