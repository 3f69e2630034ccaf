package ini

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

// fakeMachine is Options without a machine: two files, no commands.
func fakeMachine(files map[string]string) Options {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o600}
	}
	open := func(name string) string { return path.Clean(strings.TrimPrefix(name, "/fake/")) }
	return Options{
		Dir:       "/fake",
		LookupEnv: func(name string) (string, bool) { return "[" + name + "]", len(name) == 1 },
		IsOption:  func(name string) bool { return name == "master" },
		Vars:      map[byte]string{'h': "host", 'u': "0", 'U': "root", 'g': "0", 'G': "root", 'k': "1", 'b': "/bin/x", 't': "1", 'T': "1000000"},
		ReadFile:  func(name string) ([]byte, error) { return fsys.ReadFile(open(name)) },
		Exec:      func(cmd string) ([]byte, error) { return []byte("ran " + cmd + "\n"), nil },
		Stat:      func(name string) (fs.FileInfo, error) { return fsys.Stat(open(name)) },
		Readable:  func(name string) bool { _, err := fsys.Stat(open(name)); return err == nil },
		Abs:       func(name string) (string, error) { return path.Clean(name), nil },
		Inode:     func(string) string { return "1" },
		Glob: func(pattern string) []string {
			matches, _ := fsys.Glob(open(pattern))
			return matches
		},
	}
}

// FuzzLoad: whatever a file says, loading it ends, within its limits, without
// a panic, and an error names a place. // T33
func FuzzLoad(f *testing.F) {
	f.Add([]byte("[uwsgi]\na = %(b)\nb = $(X)@(f)%n\n"), []byte("[uwsgi]\nc = 1\n"))
	f.Add([]byte("[uwsgi]\na = x%(a)\n"), []byte(""))
	f.Add([]byte("[uwsgi]\na = x%(b)\nb = y%(a)%(a)\n"), []byte(""))
	f.Add([]byte("[uwsgi]\ninclude = inc.ini\ninherit = inc.ini\n"), []byte("[uwsgi]\nini = main.ini\n"))
	f.Add([]byte("[uwsgi]\nfor-times = 99999999\na = %(_)%(_)\nendfor =\n"), []byte(""))
	f.Add([]byte("[uwsgi]\nfor = a b\nset = x%(_)=%(_)\nset-ph = y=1\nendfor\nz = %(xa xb + 2 ++) %(y / 0)"), []byte(""))
	f.Add([]byte("[uwsgi]\nif-env = A=[A]\nb = %(_)\nelse =\nendif\nif-not-opt = b\nc=1\nend\nini=:other\n[other]\nd=`\"\"\"\n"), []byte(""))
	f.Add([]byte("[uwsgi]\nfor-readline = inc.ini\na = @(exec://%(_))\nendfor\nfor-glob = *.ini\nb = %(_)\nend\nstrict = true"), []byte("x\r\ny\n"))
	f.Add([]byte("\xef\xbb\xbf[uwsgi]\r\na = 50%\nb = %z%%%d\n[\n[]\n=\n==\n"), []byte("\x00"))
	f.Add([]byte("[uwsgi]\ndeclare-option = a=b=$1;set=c=$2$1;a=$1\na = x y\ndeclare-option2 = d=include=$1;inherit=$2\nd = inc.ini inc.ini\n"), []byte("inject-after = main.ini\n"))
	f.Add([]byte("[uwsgi]\ninject-before = inc.ini\ninject-after = inc.ini\nini = :x\nconfig = inc.ini\n"), []byte("[x]\n5%"))
	f.Add([]byte("[uwsgi]\nblacklist = a b\na = 1\nend-blacklist\nwhitelist = end-whitelist\nend-whitelist\nresolve = x=y\n"), []byte("[x]\n5%"))
	limits := Limits{Pairs: 500, Value: 4096, Total: 64 << 10, Depth: 5, Sources: 50}
	f.Fuzz(func(t *testing.T, main, inc []byte) {
		if len(main)+len(inc) > 16<<10 {
			t.Skip("nothing new in a long file")
		}
		o := fakeMachine(map[string]string{"main.ini": string(main), "inc.ini": string(inc)})
		o.Limits = limits
		file, err := Load("main.ini", o)
		if err != nil {
			checkProblems(t, problemsOf(err), true)
			return
		}
		checkProblems(t, file.Warnings, false)
		checkProblems(t, Unknown(file, o.IsOption, []string{"master"}, nil), file.Strict)
		total := 0
		for _, p := range file.Pairs {
			total += len(p.Key) + len(p.Value)
			if p.Pos.Line < 1 || p.Pos.File == "" {
				t.Errorf("%q has no place: %v", p.Key, p.Pos)
			}
			if len(p.Value) > limits.Value {
				t.Errorf("%q has a value of %d bytes", p.Key, len(p.Value))
			}
		}
		if len(file.Pairs) > limits.Pairs || total > limits.Total {
			t.Errorf("%d options of %d bytes", len(file.Pairs), total)
		}
		again, err := Load("main.ini", o)
		if err != nil || render(again.Pairs) != render(file.Pairs) {
			t.Errorf("the second time it is different: %v", err)
		}
	})
}

func checkProblems(t *testing.T, problems Errors, mayFail bool) {
	t.Helper()
	for _, p := range problems {
		if p.Pos.File == "" || p.Message == "" {
			t.Errorf("a problem without a place or message: %#v", p)
		}
	}
	if problems.Failed() && !mayFail {
		t.Errorf("errors among warnings: %v", problems)
	}
}

// TestPlainRoundTrip: what is written plainly is read as it is, whatever the
// library or the scanner takes it for.
func TestPlainRoundTrip(t *testing.T) {
	for _, value := range []string{
		"", "x", "a = b", `"quoted"`, `'`, "`tick", "`a`", `"""three`, `"""three"""`, `back\`, "# no comment", "; nor this",
		"a # b", "tab\tin", "é", "\u00a0nbsp\u00a0", "\vvt\v", "[x]", "x]", "=", "==", ":", "-", "$", "@", "(", ")", "$(", "@()", "%", "50%", "%%", "\xff\xfe",
	} {
		for _, key := range []string{"k", "a b", "-", `"k"`, "`k`", "a:b", "%", "é", "\u00a0", "k]"} {
			t.Run(fmt.Sprintf("%q=%q", key, value), func(t *testing.T) {
				text := strings.ReplaceAll(fmt.Sprintf("[uwsgi]\n# one\n%s = %s\nlast = 1\n", key, value), "%", "%%")
				f, err := Load("a.ini", fakeMachine(map[string]string{"a.ini": text}))
				if err != nil {
					t.Fatal(err)
				}
				want := Pair{Key: key, Value: value, Pos: Pos{"a.ini", 3}}
				if len(f.Pairs) != 2 || f.Pairs[0] != want {
					t.Errorf("got %+v, want %+v and another", f.Pairs, want)
				}
			})
		}
	}
}
