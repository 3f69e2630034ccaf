package ini

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// render lists pairs as uwsgi --show-config does.
func render(pairs []Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(p.Key + " = " + p.Value + "\n")
	}
	return b.String()
}

// caseEnv is the environment of testdata/cases.
func caseEnv(name string) (string, bool) {
	value, ok := map[string]string{"CASE_HOME": "/home/case", "HOME": "/root", "PATH": "/bin"}[name]
	return value, ok
}

// realOption stands for uWSGI's table of options.
func realOption(name string) bool { return name == "master" || name == "workers" }

// TestCases compares with what the real uWSGI made of the files.
func TestCases(t *testing.T) {
	for _, tt := range []struct {
		name    string
		problem string // of the error, or of a warning, instead of uWSGI's own text
		fails   bool
	}{
		{name: "bool"},
		{name: "crlf", problem: "crlf.ini:4: [ uwsgi ] is another section than [uwsgi]"},
		{name: "dialect", problem: "dialect.ini:52: else does nothing in uWSGI 2.0"},
		{name: "nested", problem: "nested.ini:3: if-env inside if-env of nested.ini:2", fails: true},
		{name: "nosec", problem: "nosec.ini: there are no options in section [uwsgi]"},
		{name: "pct", problem: "pct.ini:2: the % at the end of this line"},
		{name: "setph", problem: `setph.ini:2: "master" cannot be a placeholder`, fails: true},
		{name: "strict", problem: `strict.ini:3: unknown option "myvar"`, fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := filepath.Abs("testdata/cases")
			if err != nil {
				t.Fatal(err)
			}
			f, err := Load(tt.name+".ini", Options{Dir: dir, LookupEnv: caseEnv, IsOption: realOption})
			var problems Errors
			if err != nil {
				problems = err.(Errors)
			} else {
				problems = append(f.Warnings, Unknown(f, realOption, nil)...)
			}
			if problems.Failed() != tt.fails {
				t.Fatalf("failed is %v: %v", !tt.fails, problems)
			}
			if !strings.Contains(problems.Error(), tt.problem) {
				t.Errorf("no problem %q in\n%v", tt.problem, problems)
			}
			if tt.fails || tt.name == "nosec" { // uWSGI printed a message instead of a configuration
				return
			}
			want, err := os.ReadFile(filepath.Join(dir, tt.name+".expected"))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := render(f.Pairs), strings.ReplaceAll(string(want), "@DIR@", dir); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestErrorIsErrors(t *testing.T) {
	_, err := Load("nothere.ini", Options{Dir: t.TempDir()})
	list, ok := errors.AsType[Errors](err)
	if !ok || len(list) != 1 {
		t.Fatalf("%#v is not one of Errors", err)
	}
	if one, ok := errors.AsType[Error](err); !ok || one != list[0] {
		t.Errorf("no Error inside of %v", err)
	}
	if got, want := err.Error(), "nothere.ini: cannot read nothere.ini: "+fs.ErrNotExist.Error(); !strings.HasPrefix(got, "nothere.ini: cannot read nothere.ini: no such file") {
		t.Errorf("got %q, want something like %q", got, want)
	}
}
