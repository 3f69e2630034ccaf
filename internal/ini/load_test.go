package ini

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// render lists pairs as uwsgi --show-config does.
func render(pairs []Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		if p.Made {
			continue
		}
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
		{name: "declare", problem: `declare.ini:5: nothing stands for "novalue", which is no option=value`},
		{name: "inject"},
		{name: "lists"},
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
			f, err := Load(tt.name+".ini", Options{Dir: dir, LookupEnv: caseEnv, IsOption: realOption, Resolve: resolve})
			var problems Errors
			if err != nil {
				problems = problemsOf(err)
			} else {
				problems = append(f.Warnings, Unknown(f, realOption, nil, nil)...)
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

// TestLoad covers what the recorded cases and the comparison with the real
// uWSGI do not: our messages, and where we differ on purpose.
func TestLoad(t *testing.T) {
	const head = "[uwsgi]\n"
	for _, tt := range []struct {
		name, text string
		pairs      string // of a file that loads
		problems   string // all of them
	}{
		{"our own section", "[fiefdom]\na = 1\n[uwsgi]\nb = 2\n[other]\nc=3\n", "a = 1\nb = 2\n", ""},
		{"byte order mark", "\xef\xbb\xbf[uwsgi]\na = 1\n", "a = 1\n", ""},
		{"nul byte", head + "a = 1\nb = \x00\n", "", "main.ini:3: there is a NUL byte; is this a text file?"},
		{"empty", "", "", "main.ini: there are no options in section [uwsgi] or [fiefdom]"},
		{"meant as a section", "[ UWSGI ]\na = 1\n", "", "main.ini:1: [ UWSGI ] is another section than [uwsgi]; blanks, letters' case and the closing bracket count"},
		{"percent and line break", head + "a = 5%\nb = 1\n", "a = 5b = 1\n", "main.ini:2: the % at the end of this line makes the next line part of it; write %%"},
		{"percent in a comment", head + "# 5%\nb = 1\nc = 1\n", "c = 1\n", "main.ini:2: the % at the end of this comment makes the next line part of it; write %%"},
		{"no magic variable", head + "a = %Y-%%\n", "a = -%\n", `main.ini:2: "%Y" is no magic variable and is removed; write %% for a percent sign`},
		{
			"inline comment", head + "uid = 1 # me\ngid = 2 ; me\nexec-as-root = a ; b\n", "uid = 1 # me\ngid = 2 ; me\nexec-as-root = a ; b\n",
			"main.ini:2: \"# me\" is part of the value, not a comment; put comments on lines of their own\nmain.ini:3: \"; me\" is part of the value, not a comment; put comments on lines of their own",
		},
		{
			"else", head + "if-env = A\na = 1\nelse =\nb = 2\nendif =\n", "if-env = A\na = 1\nelse = \nb = 2\nendif = \n",
			"main.ini:4: else does nothing in uWSGI 2.0: what follows still belongs to the first branch; use endif and if-not-…",
		},
		{"nested in a branch taken", head + "if-not-env = NO\nfor = a b\nendfor =\nendif =\n", "", "main.ini:3: for inside if-not-env of main.ini:2: if and for cannot be nested"},
		{
			"nested in a branch not taken", head + "if-env = NO\nfor = a b\na = 1\nendfor =\nb = 2\nendif =\n", "if-env = NO\nendfor = \nb = 2\nendif = \n",
			"main.ini:3: for inside if-env of main.ini:2, which is not taken here: if and for cannot be nested, and the first end closes both, as in uWSGI",
		},
		{"nested through an include", head + "for = a\ninclude = block.ini\nendfor =\n", "", "block.ini:2: if-env inside for of main.ini:2: if and for cannot be nested"},
		{"never closed", head + "for = a b\nx = %(_)\n", "for = a b\nx = a\nx = b\n", `main.ini:2: for = a b is never closed; end it with "endfor"`},
		{"bad regular expression", head + "if-hostname-match = (\na = 1\nb = 1\nendif =\n", "", "main.ini:2: if-hostname-match: error parsing regexp: missing closing ): `(`"},
		{
			"include of what is no ini", head + "include = :other\ninherit = x.xml\n", "",
			"main.ini:2: include: \":other\" is not the name of an ini; it must end in .ini (for another section of this file write ini = :section)\n" +
				"main.ini:3: inherit: \"x.xml\" is not the name of an ini; it must end in .ini (for another section of this file write ini = :section)",
		},
		{"include with a section", head + "include = block.ini:two\n", "include = block.ini:two\nt = two\n", ""},
		{"include that is not there", head + "include = no.ini\na = 1\n", "", "main.ini:2: cannot read no.ini: file does not exist"},
		{"reference in an immediate option", head + "include = %(dir)/x.ini\n", "", "main.ini:2: cannot read %(dir)/x.ini: file does not exist\nmain.ini:2: %(…) is not expanded in include, which is done while the file is read; only magic variables (%n, %d, …) are"},
		{"umask is stored at once", head + "umask = $(A)\n", "umask = $(A)\n", "main.ini:2: $(…) is not expanded in umask, which is done while the file is read; only magic variables (%n, %d, …) are"},
		{"file that is not there", head + "a = x @(no) $(NO)\n", "", "main.ini:2: a: @(no): file does not exist"},
		{
			"scheme", head + "a = @(http://x/y)\nini = fd://0\nb = @(-)\nc = @(sym://x)\nresolve = d=localhost\n", "",
			"main.ini:2: a: @(http://x/y): http:// is not read for this file; use a file or exec://\nmain.ini:3: cannot read fd://0: fd:// is not read for this file; use a file or exec://\n" +
				"main.ini:4: b: @(-): standard input cannot be read here\nmain.ini:5: c: @(sym://x): sym:// is not supported; use a file or exec://\n" +
				"main.ini:6: resolve is not done for this file; write the address",
		},
		{"command", head + "a = @(exec://echo $(A))\nini = exec://[uwsgi]\n", "a = ran echo [A]\nini = exec://[uwsgi]\n", "exec://[uwsgi]: there are no options in section [uwsgi] or [fiefdom]"},
		{"unsupported", head + "xml = a.xml\nyaml = y\n", "", "main.ini:2: uWSGI's option \"xml\" is not supported here; write what it does into the file, or remove it\nmain.ini:3: uWSGI's option \"yaml\" is not supported here; write what it does into the file, or remove it"},
		{
			"declared option", head + "declare-option = who=uid=$1;gid=$2;set=x=$1-$2\nuid = 1\nwho = 5 6\ny = %(x)\n",
			"declare-option = who=uid=$1;gid=$2;set=x=$1-$2\nuid = 1\nwho = 5 6\nx = 5-6\ny = 5-6\n", "",
		},
		{"declared without an equals sign", head + "declare-option = who\n", "", `main.ini:2: declare-option: want name=option=value;option=value, not "who"`},
		{
			"declared again", head + "declare-option = master=a=b\ndeclare-option2 = a=b=c\ndeclare-option2 = a=b=d\n", "declare-option = master=a=b\ndeclare-option2 = a=b=c\ndeclare-option2 = a=b=d\n",
			"main.ini:2: declare-option: there is an option \"master\" already; it keeps its meaning\nmain.ini:4: declare-option2: there is an option \"a\" already; it keeps its meaning",
		},
		{"declared with half an option", head + "declare-option = a=b;c=d\na = 1\n", "declare-option = a=b;c=d\na = 1\n", `main.ini:3: a stands for "b", which is no option=value: what follows is ignored, as in uWSGI`},
		{"declared as a placeholder, too", head + "declare-option = a=b=c\nset-ph = a=1\n", "", `main.ini:3: "a" cannot be a placeholder: it is an option`},
		{"inject", head + "inject-before = inject.txt\ninject-after = inject.txt\ninclude = two.ini\n", "inject-before = inject.txt\ninject-after = inject.txt\ninclude = two.ini\ni = two\ntwo = 2\ni = two\n", ""},
		{"inject what is not there", head + "inject-after = no.txt\ninclude = two.ini\n", "", "main.ini:2: inject-after: cannot read no.txt: file does not exist"},
		{"blacklist", head + "blacklist = a b\nif-env = NO\nb = 1\nendif =\nend-blacklist =\na = 1\n", "", `main.ini:4: option "b" is forbidden by the blacklist of main.ini:2`},
		{"whitelist", head + "whitelist = a end-whitelist\na = 1\nb = 1\nend-whitelist =\nb = 2\n", "", `main.ini:4: option "b" is forbidden by the whitelist of main.ini:2`},
		{"resolve without a host", head + "resolve = a\n", "", `main.ini:2: resolve: want name=host, not "a"`},
		{"placeholder of the dialect's name", head + "set-ph = if-env=1\n", "", `main.ini:2: "if-env" cannot be a placeholder: it is an option`},
		{"set without a value", head + "set = a\n", "", `main.ini:2: set: want name=value, not "a"`},
		{"reference at the start", head + "a = %(b)\nb = %(c)\nc = 1\n", "a = %(c)\nb = 1\nc = 1\n", "main.ini:2: a: %(c) stays as it is: uWSGI does not look twice at the start of a value; move the options that it is made of above it"},
		{"name of the file", head + "a = %(ini)\n", "a = main.ini\n", ""},
		{"reload", head + "if-reload =\na = 1\nendif =\n", "if-reload = \nendif = \n", ""},
		{"plugin", head + "plugins = psgi,tuntap\nif-plugin = tuntap\na = %(_)\nendif =\n", "plugins = psgi,tuntap\nif-plugin = tuntap\na = tuntap\nendif = \n", ""},
		{"control characters in a message", head + "a = @(%[[31m\u0085\xff)\n", "", `main.ini:2: a: @(\x1b[31m\u0085\ufffd): file does not exist`},
		{
			"several errors in the order of the file", head + "a = @(no)\nset = x\nb = @(no)\n", "",
			"main.ini:2: a: @(no): file does not exist\nmain.ini:3: set: want name=value, not \"x\"\nmain.ini:4: b: @(no): file does not exist",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Load("main.ini", fakeMachine(map[string]string{
				"main.ini":   tt.text,
				"block.ini":  "[uwsgi]\nif-env = A\nb = 1\nendif =\n[two]\nt = %x %X\n",
				"two.ini":    "two = 2\n",
				"inject.txt": "[uwsgi]\ni = %n\n",
			}))
			if err != nil {
				if err.Error() != tt.problems {
					t.Errorf("error\n%v\nwant\n%s", err, tt.problems)
				}
				return
			}
			if got := render(f.Pairs); got != tt.pairs {
				t.Errorf("got\n%s\nwant\n%s", got, tt.pairs)
			}
			if got := f.Warnings.Error(); got != tt.problems {
				t.Errorf("warnings\n%s\nwant\n%s", got, tt.problems)
			}
			if f.Name != "main.ini" {
				t.Errorf("name %q", f.Name)
			}
		})
	}
}

func TestLoadSection(t *testing.T) {
	o := fakeMachine(map[string]string{"a.ini": "[uwsgi]\na = 1\nini = :c\n[b]\na = %x\nini = :c\n[c]\nc = %x %X\n"})
	for name, want := range map[string]string{
		"a.ini":   "a = 1\nini = :c\nc = c\n",
		"a.ini:":  "a = 1\nini = :c\nc = c\n",
		"a.ini:b": "a = b\nini = :c\nc = c b\n",
	} {
		f, err := Load(name, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := render(f.Pairs); got != want || f.Name != "a.ini" {
			t.Errorf("%s: got %s of\n%s\nwant\n%s", name, f.Name, got, want)
		}
	}
	if _, err := Load(":b", o); err == nil {
		t.Error("a section of no file is no error")
	}
}

func TestLoadStdin(t *testing.T) {
	f, err := Load("-", Options{Stdin: strings.NewReader("[uwsgi]\na = %o\n")})
	if err != nil {
		t.Fatal(err)
	}
	if got := render(f.Pairs); got != "a = -\n" {
		t.Errorf("got %q", got)
	}
}

// TestMade: what a declared option stands for acts before the options that are
// not immediate, and is told from what was written.
func TestMade(t *testing.T) {
	f, err := Load("main.ini", fakeMachine(map[string]string{
		"main.ini": "[uwsgi]\nuid = 1\nlate = %(uid)\ndeclare-option = who=uid=$1;gid=x$1\nwho = 7\ndeclare-option2 = late=pid=$1\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := []Pair{
		{"uid", "7", Pos{"main.ini", 5}, true},
		{"gid", "x7", Pos{"main.ini", 5}, true},
		{"uid", "1", Pos{"main.ini", 2}, false},
		{"late", "1", Pos{"main.ini", 3}, false},
		{"declare-option", "who=uid=$1;gid=x$1", Pos{"main.ini", 4}, false},
		{"who", "7", Pos{"main.ini", 5}, false},
		{"declare-option2", "late=pid=$1", Pos{"main.ini", 6}, false},
	}
	if !slices.Equal(f.Pairs, want) {
		t.Errorf("got\n%v\nwant\n%v", f.Pairs, want)
	}
	if errs := Unknown(f, func(name string) bool { return strings.HasSuffix(name, "id") }, nil, nil); len(errs) > 0 {
		t.Errorf("unknown: %v", errs)
	}
}

func TestEnvironment(t *testing.T) {
	o := fakeMachine(map[string]string{"main.ini": "[uwsgi]\na = %(http-socket) %(ini)\n"})
	o.Environ = []string{"HOME=/", "UWSGI_HTTP_SOCKET=:%(x)", "UWSGI_EMPEROR_FD=3", "UWSGI_X=80", "UWSGI_SET=novalue", "UWSGI_", "XUWSGI_Y=1"}
	_, err := Load("main.ini", o)
	if want := "$UWSGI_SET: set: want name=value, not \"novalue\""; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	o.Environ[4] = "UWSGI_SET=y=1"
	f, err := Load("main.ini", o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := render(f.Pairs), "http-socket = :80\nx = 80\nset = y=1\ny = 1\na = :80 main.ini\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestLineBreakInName: the name of a file must not add options to it.
func TestLineBreakInName(t *testing.T) {
	name := "a\nuid = 0\n.ini"
	_, err := Load(name, fakeMachine(map[string]string{name: "[uwsgi]\nlogto = %n.log\n"}))
	if err == nil || !strings.Contains(err.Error(), "contains a line break") {
		t.Errorf("got %v", err)
	}
}

// TestLimits: what grows without end is stopped, and says why.
func TestLimits(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, tt := range []struct{ name, text, want string }{
		{"to itself", "a = x%(a)\n", "main.ini:2: the configuration grows beyond 16777216 bytes; does an option refer to itself?"},
		{"to each other", "a = x%(b)%(b)\nb = %(a)\n", "main.ini:2: the configuration grows beyond"},
		{"long at once", "a = " + strings.Repeat("y", 200000) + "\nb = x%(a)%(a)\n", "main.ini:3: b grows beyond 262144 bytes; does it refer to itself?"},
		{"without growing", "a = x%(b)\nb = %(c)\nc = %(b)\n", "main.ini:2: the configuration grows beyond"},
		{"doubling", "a = " + long + "\nb = _%(a a a a a a a a)\nc = _%(b b b b b b b b)\nd = _%(c c c c c c c c)\n", "main.ini:5: d: %(c c c c c c c c): too long"},
		{"wide", "a = " + long + "\nfor-times = 99999\nb = _" + strings.Repeat("%(a)", 100) + "\nendfor =\n", "main.ini:4: the configuration grows beyond"},
		{"long message", "include = " + strings.Repeat("z", 5000) + "\n", strings.Repeat("z", 900)},
		{"times", "for-times = 1000000000\na = 1\nendfor =\n", "main.ini:2: for-times = 1000000000: there are more than 100000 options"},
		{"item", "a = " + strings.Repeat("y", 200000) + "\nif-opt = a\nb = %(_)%(_)\nendif =\n", "main.ini:4: b: more than 262144 bytes"},
		{"magic", "a = " + strings.Repeat("%p", 200000) + "\n", "main.ini:2: an option of more than 262144 bytes"},
		{"including itself", "include = main.ini\n", "main.ini:2: main.ini: more than 16 files include each other"},
		{"inheriting itself", "inherit = main.ini\n", "main.ini:2: more than 1000 files and commands are read"},
		{"its own section", "ini = :uwsgi\n", "main.ini:2: :uwsgi: more than 16 files include each other"},
		{"many options", strings.Repeat("a\n", 100_001), "main.ini:100002: there are more than 100000 options"},
		{"many errors", strings.Repeat("set = a\n", 5000), "main.ini:1002: set: want"},
		{"declared as itself", "declare-option = a=a=1\na = 1\n", "main.ini:3: a: more than 16 declared options and files use each other"},
		{"declared in pairs", "declare-option = a=set=x=$1\na = " + strings.Repeat("$2", 50000) + " " + strings.Repeat("$3", 5000) + "\n", "main.ini:3: a stands for more than 262144 bytes"},
		{"declared by many", "declare-option = b=c=$1" + strings.Repeat(";c=$1", 2000) + "\nfor-times = 100\nb = 1\nendfor =\n", "main.ini:4: there are more than 100000 options"},
		{"inject without end", "inject-before = long\nfor-times = 999\ninclude = other.ini\nendfor =\n", "the configuration grows beyond"},
		{"many files", "for-times = 2000\na = @(other)\nendfor =\n", "files and commands are read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load("main.ini", fakeMachine(map[string]string{
				"main.ini": "[uwsgi]\n" + tt.text, "other": "", "other.ini": "", "long": strings.Repeat("#", 100_000),
			}))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.2000v\nwant %s", err, tt.want)
			}
			if n := len(problemsOf(err)); n > maxProblems+1 || len(err.Error()) > n*1100 {
				t.Errorf("%d errors, %d bytes", n, len(err.Error()))
			}
		})
	}
}

// problemsOf are what Load's error holds.
func problemsOf(err error) Errors {
	problems, _ := errors.AsType[Errors](err)
	return problems
}

// What is wrong with a file that is read several times is told once.
func TestProblemsAreToldOnce(t *testing.T) {
	dir := t.TempDir()
	part, main := filepath.Join(dir, "part.ini"), filepath.Join(dir, "main.ini")
	for path, text := range map[string]string{part: "[uwsgi]\nk = 50%\n", main: "[uwsgi]\ninclude = " + part + "\nx = 1\nk = 50%\ninclude = " + part + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Load(main, Options{})
	if err != nil || len(f.Warnings) != 2 || f.Warnings[0].Pos.File == f.Warnings[1].Pos.File {
		t.Errorf("%v, %v", err, f.Warnings)
	}
}
