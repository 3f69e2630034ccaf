package emperor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// In tyrant mode nobody puts another's vassal to sleep, or says where its socket
// is, by a file beside its ini.
func TestDoorsOfStrangers(t *testing.T) {
	nettest.Root(t)
	const alice, bob = 61200, 61201
	for name, tt := range map[string]struct {
		uid    int  // of the file
		link   int  // of a link to it; 0: it is none
		tyrant bool //
		door   bool
	}{
		"her own":                   {alice, 0, true, true},
		"root's":                    {0, 0, true, true},
		"a neighbour's":             {bob, 0, true, false},
		"a neighbour's link to her": {alice, bob, true, false},
		"her link":                  {alice, alice, true, true},
		"her link to a neighbour's": {bob, alice, true, false},
		"without tenants":           {bob, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			// Not one for all, where fs.protected_symlinks lets root follow nobody's link.
			dir := filepath.Join(sharedDir(t), "v")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "blog.ini")
			write(t, path, "[uwsgi]\ncommand = /bin/app\n")
			if err := os.Chown(path, alice, alice); err != nil {
				t.Fatal(err)
			}
			file := path + ".socket"
			if tt.link != 0 {
				file = filepath.Join(dir, "elsewhere")
				if err := os.Symlink(file, path+".socket"); err != nil {
					t.Fatal(err)
				}
				if err := os.Lchown(path+".socket", tt.link, tt.link); err != nil {
					t.Fatal(err)
				}
			}
			write(t, file, "/tmp/blog.socket\n")
			if err := os.Chown(file, tt.uid, tt.uid); err != nil {
				t.Fatal(err)
			}
			c := &Config{Monitors: []Monitor{{Dir: dir}}, Tyrant: tt.tyrant, OnDemand: OnDemand{Extension: ".socket"}}
			s := c.scan(nil)
			f, ok := s.found["blog"]
			if !ok || f.refused != "" || (f.door != "") != tt.door {
				t.Errorf("%+v", f)
			}
			if said := len(s.errs) == 1 && strings.Contains(s.errs[0].Error(), "put there by uid 61201"); said == tt.door {
				t.Errorf("said: %v", s.errs)
			}
		})
	}
}
