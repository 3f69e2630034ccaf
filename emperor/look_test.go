package emperor

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

func TestExtensions(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.ini", "b.conf", "c.app.cfg", ".conf", "d.cfg", "e.txt"} {
		write(t, filepath.Join(dir, name), "")
	}
	c := goodEmperor(t, "emperor = "+dir+"\nemperor-extra-extension = .conf\nemperor-extra-ext = .app.cfg\n")
	if s := c.scan(nil); !reflect.DeepEqual(s.order, []string{"a", "b", "c"}) || len(s.errs) > 0 {
		t.Errorf("%q, %v", s.order, s.errs)
	}
}

// One file as a source, whole or several of its sections.
func TestFilesAsSources(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	path := filepath.Join(dir, "apps.ini")
	write(t, path, "[uwsgi]\ncommand = /bin/main\n[blog]\ncommand = /bin/blog %x\n[shop]\ncommand = /bin/shop\n")
	c := goodEmperor(t, "emperor = "+path+"\nemperor = "+path+":blog\nemperor = glob://"+dir+"/a*.ini:shop\nemperor = "+path+":none\n")
	s := c.scan(nil)
	if want := []string{"apps", "apps:blog", "apps:shop", "apps:none"}; !reflect.DeepEqual(s.order, want) || len(s.errs) > 0 {
		t.Fatalf("%q, %v", s.order, s.errs)
	}
	for name, want := range map[string]string{"apps": "/bin/main", "apps:blog": "/bin/blog blog", "apps:shop": "/bin/shop"} {
		x := c.checkFile(s.found[name])
		if x.Errors.Failed() || strings.Join(x.Config.Command, " ") != want || x.Config.Name != name {
			t.Errorf("%s: %+v, %v", name, x.Config, x.Errors)
		}
	}
	if x := c.checkFile(s.found["apps:none"]); !x.Errors.Failed() {
		t.Errorf("a section that is not there: %+v", x.Config)
	}
}

// Links to one skeleton: what counts as a change of each.
func TestNoFollow(t *testing.T) {
	dir := t.TempDir()
	skeleton, link := filepath.Join(dir, "app.skel"), filepath.Join(dir, "blog.ini")
	write(t, skeleton, "")
	if err := os.Symlink(skeleton, link); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for _, follow := range []bool{true, false} {
		c := &Config{Monitors: []Monitor{{Dir: dir}}, Looking: Looking{NoFollow: !follow}}
		before := c.scan(nil).found["blog"]
		later = later.Add(time.Hour)
		if err := os.Chtimes(skeleton, later, later); err != nil {
			t.Fatal(err)
		}
		if changed := c.scan(nil).found["blog"] != before; changed != follow {
			t.Errorf("follow %v: a touched skeleton is a change: %v", follow, changed)
		}
		before = c.scan(nil).found["blog"]
		if err := errors.Join(os.Remove(link), os.Symlink(skeleton, link)); err != nil {
			t.Fatal(err)
		}
		if changed := c.scan(nil).found["blog"] != before; changed == follow {
			t.Errorf("follow %v: a new link to the same skeleton is a change: %v", follow, changed)
		}
	}
}

// In tyrant mode a link stands for its target's owner, or for its own.
func TestTyrantNoFollow(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	skeletons := sharedDir(t)
	link := func(name string, uid, target int) {
		skeleton := filepath.Join(skeletons, name)
		write(t, skeleton, "[uwsgi]\ncommand = /bin/app %n\nenv = UID=@(exec://id -u)\n")
		path := filepath.Join(dir, name+".ini")
		if err := errors.Join(os.Chown(skeleton, target, target), os.Symlink(skeleton, path), os.Lchown(path, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	link("roots", 61200, 0)
	link("own", 61200, 61200)
	link("others", 61200, 61201)
	link("given", 0, 61200)
	for _, tt := range []struct {
		name     string
		noFollow bool
		uid      string // that reads it
		want     string // the error
	}{
		{"roots", true, "61200", ""},
		{"own", true, "61200", ""},
		{"others", true, "", "belongs to uid 61201"},
		{"given", true, "", "belongs to uid 61200"},
		{"roots", false, "", "a symbolic link of uid 61200 to a file of uid 0"},
		{"own", false, "61200", ""},
		{"others", false, "", "a symbolic link of uid 61200 to a file of uid 61201"},
		{"given", false, "61200", ""},
	} {
		c := &Config{Monitors: []Monitor{{Dir: dir}}, Tyrant: true, Looking: Looking{TyrantNoFollow: tt.noFollow}}
		e := testEmperor(t)
		e.Config = c
		f := c.scan(nil).found[tt.name]
		e.newMember(f)
		x := new(expanders).expandAll(t.Context(), f.owner, []iniFile{f})[0]
		x.Errors = append(x.Errors, e.claim(e.vassals[tt.name], &x)...)
		switch {
		case tt.want == "" && (x.Errors.Failed() || x.Config.Env[0] != "UID="+tt.uid || x.Config.Command[1] != tt.name):
			t.Errorf("%+v: %+v, %v", tt, x.Config, x.Errors)
		case tt.want != "" && !strings.Contains(x.Errors.Error(), tt.want):
			t.Errorf("%+v: %v", tt, x.Errors)
		}
	}
}
