package emperor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/nettest"
)

// An executable ini is run under its owner, and only where the emperor says so.
func TestMagicExec(t *testing.T) {
	nettest.Root(t)
	const script = "#!/bin/sh\necho '[uwsgi]'\necho command = /bin/app $(id -u) %n $PWD\n"
	for _, tt := range []struct {
		name, emperor, text string
		mode                os.FileMode
		uid                 int
		want, err           string
	}{
		{"a tenant's", "emperor-magic-exec = true", script, 0o755, 61200, "/bin/app 61200 x DIR", ""},
		{"root's", "emperor-magic-exec = true", script, 0o755, 0, "/bin/app 0 x DIR", ""},
		{"everybody's", "emperor-magic-exec = true", script, 0o777, 0, "", "everybody may write it"},
		{"not executable", "emperor-magic-exec = true", script, 0o644, 61200, "", "nothing to run"},
		{"not asked for", "emperor-magic-exec = false", script, 0o755, 61200, "", "nothing to run"},
		{"tyrant", "emperor-magic-exec = true\nemperor-tyrant = true", script, 0o755, 61200, "", "nothing to run"},
		{"fails", "emperor-magic-exec = true", "#!/bin/sh\necho '[uwsgi]'\necho command = /bin/app\nexit 3\n", 0o755, 61200, "", "exit status 3"},
		{"floods", "emperor-magic-exec = true", "#!/bin/sh\nyes\n", 0o755, 61200, "", "it writes more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := sharedDir(t)
			path := filepath.Join(dir, "x.ini")
			write(t, path, tt.text)
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, tt.uid, tt.uid); err != nil {
				t.Fatal(err)
			}
			c := goodEmperor(t, "emperor = "+dir+"\n"+tt.emperor+"\n")
			f := c.scan(nil).found["x"]
			x := &expanders{cgroup: testCgroup(t), common: c.Common}
			got := x.expandAll(t.Context(), f.owner, []iniFile{f})[0]
			switch {
			case tt.err != "" && !strings.Contains(got.Errors.Error(), tt.err):
				t.Errorf("%v, want %q", got.Errors, tt.err)
			case tt.err == "" && (got.Errors.Failed() || strings.Join(got.Config.Command, " ") != strings.ReplaceAll(tt.want, "DIR", dir)):
				t.Errorf("%+v, %v", got.Config, got.Errors)
			}
		})
	}
}
