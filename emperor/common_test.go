package emperor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// emperorOf parses an emperor's ini.
func emperorOf(t *testing.T, text string) (*Config, ini.Errors) {
	t.Helper()
	path := filepath.Join(sharedDir(t), "emperor.ini")
	write(t, path, "[uwsgi]\n"+text)
	f, err := ini.Load(path, ini.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return Parse(f)
}

func goodEmperor(t *testing.T, text string) *Config {
	t.Helper()
	c, errs := emperorOf(t, text)
	if errs.Failed() {
		t.Fatal(errs)
	}
	return c
}

// expandWith expands one ini of an owner under an emperor's options.
func expandWith(t *testing.T, c *Config, uid int, name, text string, environ ...string) expansion {
	t.Helper()
	nettest.Root(t)
	files := owned(t, sharedDir(t), uid, map[string]string{name: text})
	x := &expanders{cgroup: testCgroup(t), common: c.Common}
	x.common.Environ = vassalEnviron(environ)
	return x.expandAll(t.Context(), files[0].owner, files)[0]
}

// What an emperor's ini and environment give to all vassals, together.
func TestCommonOptions(t *testing.T) {
	dir := sharedDir(t)
	for name, text := range map[string]string{
		"before": "placed = before\nenv = WHO=%n %N %(own)\n",
		"after":  "vassal_name = %n\nenv = DIR=%d\n",
		"inh":    "placed = inherit\nenv = INH=%n %(own)\n",
	} {
		write(t, filepath.Join(dir, name+".ini"), "[uwsgi]\n"+text)
	}
	in := func(name string) string { return filepath.Join(dir, name+".ini") }
	c := goodEmperor(t, "vassals-include = "+in("after")+"\nvassals-inherit = "+in("inh")+"\nvassals-include-before = "+in("before")+
		"\nvassal-set = env=SET=%%n.%(vassal_name)\nvassals-set = placed=set\n")
	for _, uid := range []int{0, 61200} {
		got := expandWith(t, c, uid, "blog", "own = x\nenv = MINE=%(placed) %(vassal_name) $(UWSGI_PLAIN)\ncommand = /bin/app\n",
			"UWSGI_VASSAL_PLAIN=p", "UWSGI_VASSAL_ENV=ENVIRON=%n", "UWSGI_ENV=not=me", "PATH=/")
		if got.Errors.Failed() {
			t.Fatal(got.Errors)
		}
		want := []string{"ENVIRON=blog", "WHO=blog blog x", "SET=blog.blog", "MINE=before blog p", "DIR=" + dir + "/", "INH=blog %(own)"}
		if !slices.Equal(got.Config.Env, want) {
			t.Errorf("uid %d: %q, want %q", uid, got.Config.Env, want)
		}
	}
}

// With uWSGI an emperor's uid and gid are those of all that he starts.
func TestTheEmperorsUserIsHisVassals(t *testing.T) {
	tests := map[string]struct {
		emperor, own string
		uid, gid     int // 0: none is named
	}{
		"vassal without":          {"uid = 61301\ngid = 61302\n", "", 61301, 61302},
		"the last one counts":     {"uid = 61300\nuid = 61301\n", "", 61301, 0},
		"uWSGI's other names":     {"immediate-uid = 61301\nimmediate-gid = 61302\n", "", 61301, 61302},
		"vassal with its own":     {"uid = 61301\ngid = 61302\n", "uid = 61400\ngid = 61401\n", 61400, 61401},
		"vassal-set is more":      {"vassal-set = uid=61400\nuid = 61301\n", "", 61400, 0},
		"tyrant mode has owner's": {"uid = 61301\ngid = 61302\nemperor-tyrant = true\n", "", 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := expandWith(t, goodEmperor(t, test.emperor), 61200, "blog", "command = /bin/app\n"+test.own)
			if got.Errors.Failed() {
				t.Fatal(got.Errors)
			}
			if c := got.Config; idOrNone(c.UID) != test.uid || idOrNone(c.GID) != test.gid {
				t.Errorf("uid %v, gid %v, want %d and %d", c.UID, c.GID, test.uid, test.gid)
			}
		})
	}
}

func TestCommonOptionsAreChecked(t *testing.T) {
	for _, text := range []string{"uid = \n", "vassals-include = \n", "emperor-extra-extension = \n", "emperor-extra-extension = a/b\n"} {
		if _, errs := emperorOf(t, text); !errs.Failed() || errs[0].Pos.Line != 2 {
			t.Errorf("%s: %v", text, errs)
		}
	}
	got := expandWith(t, goodEmperor(t, "vassals-include = /no/such.ini\nvassal-set = nonsense\n"), 61200, "blog", "command = /bin/app\n")
	text := got.Errors.Error()
	for _, want := range []string{"emperor.ini:2: cannot read /no/such.ini", "emperor.ini:3: set: want name=value"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// A file that only root may read reaches only vassals whose inis are root's.
func TestCommonFilesAreReadByTheOwner(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	secret := filepath.Join(dir, "secret.ini")
	write(t, secret, "[uwsgi]\nsecret = hunter2\nenv = A=@(exec://id -u)\n")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	c := goodEmperor(t, "vassals-include = "+secret+"\n")
	roots := expandWith(t, c, 0, "blog", "command = /bin/app %(secret)\n")
	if roots.Errors.Failed() || roots.Config.Command[1] != "hunter2" || roots.Config.Env[0] != "A=0" {
		t.Errorf("root's: %+v", roots)
	}
	got := expandWith(t, c, 61200, "blog", "command = /bin/app %(secret)\n")
	if text := got.Errors.Error(); !got.Errors.Failed() || !strings.Contains(text, "emperor.ini:2: ") || !strings.Contains(text, "permission denied for uid 61200") || strings.Contains(text, "hunter2") {
		t.Errorf("a tenant's: %+v", got)
	}
}

// Nobody's text acts with the rights of somebody else, whoever includes it.
func TestOthersFilesAreRefused(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	file := func(name string, uid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		write(t, path, "[uwsgi]\nenv = A=1\n")
		if err := errors.Join(os.Chmod(path, mode), os.Chown(path, uid, uid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots, his, others, open := file("roots.ini", 0, 0o644), file("his.ini", 61200, 0o600), file("others.ini", 61201, 0o644), file("open.ini", 0, 0o666)
	for _, tt := range []struct {
		name    string
		emperor string // his options
		own     string // the vassal's
		uid     int
		want    string // the error; empty: fine
	}{
		{"root's, for all", "vassals-include = " + roots, "", 61200, ""},
		{"the owner's own", "vassals-include = " + his, "", 61200, ""},
		{"another's, named by the emperor", "vassals-include = " + others, "", 61200, "belongs to uid 61201"},
		{"another's, by inherit", "vassals-inherit-before = " + others, "", 61200, "belongs to uid 61201"},
		{"another's, of the vassal's own will", "", "include = " + others, 61200, ""},
		{"a tenant's, for root", "vassals-include = " + his, "", 0, "belongs to uid 61200"},
		{"a tenant's, included by root's ini", "", "include = " + his, 0, "belongs to uid 61200"},
		{"a tenant's value in root's ini", "", "env = B=@(" + his + ")", 0, "belongs to uid 61200"},
		{"everybody's, for root", "", "include = " + open, 0, "everybody may write it"},
		{"everybody's, named by the emperor", "vassals-include-before = " + open, "", 61200, "everybody may write it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := expandWith(t, goodEmperor(t, tt.emperor+"\n"), tt.uid, "blog", "command = /bin/app\n"+tt.own+"\n")
			if tt.want == "" && got.Errors.Failed() || tt.want != "" && !strings.Contains(got.Errors.Error(), tt.want) {
				t.Errorf("%v, want %q", got.Errors, tt.want)
			}
		})
	}
}

func idOrNone(i *vassal.Identity) int {
	if i == nil {
		return 0
	}
	return i.ID
}
