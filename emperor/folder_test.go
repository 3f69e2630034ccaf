package emperor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// A relative name in an operator's command is never a tenant's file.
func TestCommandsOfTheEmperorInTenantsFolders(t *testing.T) {
	const tenant = 61001
	for name, mode := range map[string]os.FileMode{"his own": 0o755, "everybody's": 0o777 | os.ModeSticky} {
		t.Run(name, func(t *testing.T) {
			dir := sharedDir(t)
			proof := dir + "/proof"
			r := newRealm(t, func(e *Emperor) {
				e.Config.Tyrant = true
				e.Config.Hooks = asEmperor("exec:./here || pwd > " + dir + "/greeted")
				e.Config.StopHook = "./here"
				e.Config.OnDemand.Exec = "./here; :"
			})
			who := 0
			if mode.Perm() == 0o755 {
				who = tenant
			}
			if err := os.Chown(r.dir, who, who); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(r.dir, mode); err != nil {
				t.Fatal(err)
			}
			script(t, r.dir+"/here", "id -u >> "+proof+"\n")
			owned := filepath.Join(filepath.Dir(r.dir), "blog.new")
			write(t, owned, stays0)
			for _, path := range []string{owned, r.dir + "/here"} {
				if err := os.Chown(path, tenant, tenant); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(owned, r.dir+"/blog.ini"); err != nil {
				t.Fatal(err)
			}
			r.awaitState(t, "blog", Running)
			awaitFile(t, dir+"/greeted", "/\n")
			r.end()
			if b, err := os.ReadFile(proof); err == nil {
				t.Errorf("the tenant's program ran as uid %s", b)
			}
		})
	}
}

func TestWorkDir(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	for _, tt := range []struct {
		name   string
		tyrant bool
		uid    int
		mode   os.FileMode
		own    bool
	}{
		{"without tenants", false, 61001, 0o777, true},
		{"root's", true, 0, 0o755, true},
		{"a tenant's", true, 61001, 0o755, false},
		{"a group's", true, 0, 0o775, false},
		{"everybody's, sticky", true, 0, 0o777 | os.ModeSticky, false},
	} {
		folder := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(folder, tt.uid, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(folder, tt.mode); err != nil {
			t.Fatal(err)
		}
		c := Config{Tyrant: tt.tyrant}
		want := "/"
		if tt.own {
			want = folder
		}
		if got := c.workDir(folder + "/blog.ini"); got != want {
			t.Errorf("%s: %s, want %s", tt.name, got, want)
		}
	}
}
