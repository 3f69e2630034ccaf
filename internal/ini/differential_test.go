package ini

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// realUWSGI is the real thing, as far as a configuration goes.
type realUWSGI struct {
	binary  string
	version string
	options map[string]bool
}

// findUWSGI skips the test without a uwsgi 2.0, or fails where there must be one.
func findUWSGI(t *testing.T) realUWSGI {
	t.Helper()
	for _, name := range []string{"uwsgi-core", "uwsgi"} {
		binary, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		version, err := exec.Command(binary, "--version").Output()
		if err != nil || !strings.HasPrefix(string(version), "2.0.") {
			continue
		}
		list, err := exec.Command(binary, "--ini", os.DevNull, "--dump-options").Output()
		if err != nil {
			t.Fatalf("list the options of %s: %v", binary, err)
		}
		u := realUWSGI{binary, strings.TrimSpace(string(version)), map[string]bool{}}
		for option := range strings.Lines(string(list)) {
			u.options[strings.TrimSpace(option)] = true
		}
		return u
	}
	if os.Getenv("FIEFDOM_TEST_ROOT") == "1" {
		t.Fatal("no uwsgi 2.0 to compare with; apt-get install uwsgi-core")
	}
	t.Skip("no uwsgi 2.0 to compare with (apt-get install uwsgi-core)")
	return realUWSGI{}
}

// show is what uwsgi --show-config makes of dir/file; false if it refuses the
// file. It exits by itself for want of a socket; the limits are for a bug in
// the files that the test makes, which may ask for an endless expansion.
func (u realUWSGI) show(t *testing.T, dir, file string, env []string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -v 1000000; exec "$0" "$@"`, u.binary, "--show-config", "--ini", file)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s %s does not end: %s", u.binary, file, out)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("run %s: %v", u.binary, err)
	}
	_, config, ok := strings.Cut(string(out), "[uwsgi]\nshow-config = true\nini = "+file+"\n")
	if !ok {
		return string(out), false
	}
	config, _, ok = strings.Cut(config, ";end of configuration\n")
	return config, ok
}

// compareWith loads dir/file with both and reports a difference.
func (u realUWSGI) compare(t *testing.T, fatalf func(string, ...any), dir, file string, env []string) {
	t.Helper()
	want, accepted := u.show(t, dir, file, env)
	lookup := func(name string) (string, bool) {
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			return "", false
		}
		return env[i][len(name)+1:], true
	}
	f, err := Load(file, Options{
		Dir: dir, LookupEnv: lookup, Sections: []string{"uwsgi"},
		IsOption: func(name string) bool { return u.options[name] },
		Vars:     map[byte]string{'V': u.version, 'b': u.binary},
	})
	if err == nil && f.Strict {
		if unknown := Unknown(f, func(name string) bool { return u.options[name] }, nil); unknown.Failed() {
			err = unknown
		}
	}
	text, _ := os.ReadFile(filepath.Join(dir, file))
	switch {
	case (err == nil) != accepted:
		fatalf("%s\nerror %v\nuwsgi: %s", text, err, want)
	case err == nil && render(f.Pairs) != want:
		got, want := strings.Split(render(f.Pairs), "\n"), strings.Split(want, "\n")
		i := 0
		for i < min(len(got), len(want))-1 && got[i] == want[i] {
			i++
		}
		fatalf("%s\ngot  %q\nwant %q\nand %d or %d lines more", text, got[i], want[i], len(got)-i-1, len(want)-i-1)
	}
}

func TestCasesAgainstUWSGI(t *testing.T) {
	u := findUWSGI(t)
	dir, err := filepath.Abs("testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/*.ini")
	if err != nil || len(files) < 10 {
		t.Fatalf("only %d cases: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			u.compare(t, t.Fatalf, dir, filepath.Base(file), []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "CASE_HOME=/home/case"})
		})
	}
}

// TestMagicAgainstUWSGI compares what the names of files make of the magic
// variables.
func TestMagicAgainstUWSGI(t *testing.T) {
	u := findUWSGI(t)
	var text strings.Builder
	for _, section := range []string{"uwsgi", "other"} {
		text.WriteString("[" + section + "]\n")
		for _, c := range []byte(knownMagic + "aqzAQZ ") {
			if !strings.ContainsRune("tTk%(", rune(c)) { // the time, and what is not the file's
				fmt.Fprintf(&text, "k = %c = %%%c|\n", c, c)
			}
		}
	}
	ini := text.String()
	dir := write(t, map[string]string{
		"a.b.ini": ini + "include = sub/c.ini\n", "sub/c.ini": ini + "ini = :other\n", "noext": ini, "end.": ini, ".ini": ini, "d.d/noext": ini, "exec:/x": ini,
	})
	for link, to := range map[string]string{"l.ini": "a.b.ini", "ld": "d.d"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{
		"a.b.ini", "./a.b.ini", "sub/../a.b.ini", "a.b.ini:other", "a.b.ini:", "sub/c.ini", "noext", "end.", ".ini", "d.d/noext",
		"l.ini", "./l.ini", "ld/noext", "exec:/x", dir + "/a.b.ini", dir + "/l.ini:other", dir + "//ld/../l.ini",
	} {
		t.Run(strings.TrimPrefix(file, dir), func(t *testing.T) {
			u.compare(t, t.Fatalf, dir, file, []string{"PATH=" + os.Getenv("PATH")})
		})
	}
}

// TestRandomAgainstUWSGI compares on random files.
func TestRandomAgainstUWSGI(t *testing.T) {
	u := findUWSGI(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"f0": "from a file\nsecond\n\n", "f1": "x%(k7)$(CASE_A)", "f2": "", "lines": "l1\nl 2\r\n\n%(k7)",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "CASE_A=a%(k7)", "CASE_B="}
	rapid.Check(t, func(r *rapid.T) {
		for _, name := range []string{"main.ini", "inc.ini"} {
			text := drawFile(r, name)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r.Logf("--- %s\n%s", name, text)
		}
		u.compare(t, r.Fatalf, dir, "main.ini", env)
	})
}

// leaf is the last key. Keys refer only to keys after them, so that no
// expansion is endless, and the leaf to nothing.
const leaf = 7

func drawFile(r *rapid.T, name string) string {
	var b strings.Builder
	if rapid.IntRange(0, 9).Draw(r, "orphan") == 0 {
		b.WriteString("orphan = 1\n")
	}
	b.WriteString("[uwsgi]" + drawBlank(r) + "\n")
	for range rapid.IntRange(1, 8).Draw(r, "lines") {
		b.WriteString(drawLines(r, name == "main.ini"))
	}
	b.WriteString(rapid.SampledFrom([]string{"", "[other]\n", "[uwsgi\n", "[ uwsgi ]\n", "[]\n"}).Draw(r, "section"))
	b.WriteString(drawOption(r, "\n"))
	b.WriteString("[uwsgi]\r\n")
	b.WriteString(drawOption(r, rapid.SampledFrom([]string{"\n", "", "\n\n"}).Draw(r, "end")))
	return b.String()
}

func drawLines(r *rapid.T, main bool) string {
	switch rapid.IntRange(0, 9).Draw(r, "what") {
	case 0:
		return drawBlank(r) + rapid.SampledFrom([]string{"# comment = 1", ";", "", "#"}).Draw(r, "comment") + "\n"
	case 1:
		if main {
			return rapid.SampledFrom([]string{"include = inc.ini\n", "ini = :other\n", "ini = inc.ini:other\n", "inherit = inc.ini\n", "ini=inc.ini\n", "ini = :nope\n"}).Draw(r, "include")
		}
		return ""
	case 2, 3:
		open := rapid.SampledFrom([]string{
			"for = a b  c", "for-times = 3", "for-glob = f*", "for-glob = no*", "for-readline = lines",
			"if-env = CASE_A", "if-env = NOPE", "if-env = CASE_B=", "if-not-env = NOPE", "if-not-env = CASE_A=x",
			"if-opt = k1", "if-not-opt = k1", "if-opt = k2=a", "if-not-opt = k2=a", "ifexists = f0", "if-not-exists = f0",
			"if-file = .", "if-not-file = .", "if-dir = .", "if-directory = f0", "if-not-dir = no", "if-reload = x", "if-not-reload =",
			"if-hostname = nobody", "if-not-hostname = nobody", "if-hostname-match = .", "if-plugin = nope", "if-not-plugin = nope",
		}).Draw(r, "block")
		body := drawOption(r, "\n") + drawOption(r, "\n")
		if main && rapid.IntRange(0, 5).Draw(r, "nest") == 0 {
			body += "include = inc.ini\n"
		}
		return open + "\n" + body + rapid.SampledFrom([]string{"endif =\n", "end\n", "endfor = x\n", "end-if=\n", "end-for\n"}).Draw(r, "close")
	case 4:
		i := rapid.IntRange(0, leaf).Draw(r, "key")
		return fmt.Sprintf("%s=%sk%d=%s\n", rapid.SampledFrom([]string{"set", "set-ph ", "set-placeholder"}).Draw(r, "set"), drawBlank(r), i, drawValue(r, i))
	}
	return drawOption(r, "\n")
}

func drawOption(r *rapid.T, end string) string {
	i := rapid.IntRange(0, leaf).Draw(r, "key")
	equal := rapid.SampledFrom([]string{"=", " = ", "\t=", "= "}).Draw(r, "equal")
	return drawBlank(r) + fmt.Sprintf("k%d", i) + equal + drawValue(r, i) + drawBlank(r) + end
}

func drawBlank(r *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "", " ", "\t", "\r", " \t "}).Draw(r, "blank")
}

// drawValue puts a value of key i together.
func drawValue(r *rapid.T, i int) string {
	fragments := []string{"a", "b c", "3", "-", "=", "(", ")", "'", `"`, "`", `"""`, ";", " # ", "\t", `\`, "é", "\u00a0", "\v", "%%", "%z", "%.", "[", "]", "$", "%%%%", ":"}
	if i < leaf {
		ref := fmt.Sprintf("k%d", rapid.IntRange(i+1, leaf).Draw(r, "ref"))
		fragments = append(fragments,
			"$(CASE_A)", "$(CASE_B)", "$(NOPE)", "$(", "$()", "@(f0)", "@(f1)", "@(f2)", "@(exec://echo hi; echo)", "%(_)", "%(_)", "%(nope)", "%(", "%()",
			"%("+ref+")", "%("+ref+")", "%%("+ref+")", "%("+ref+" + 1)", "%("+ref+" "+ref+")", "%(2 * "+ref+" ++)", "%("+ref+" / 0)", "%(- "+ref+"  -- 1)", "$($(NOPE))", "%(%("+ref+"))",
			"%o", "%O", "%p", "%P", "%s", "%S", "%d", "%D", "%n", "%N", "%e", "%E", "%c", "%C", "%x", "%X", "%i", "%I", "%j", "%J",
			"%v", "%h", "%u", "%U", "%g", "%G", "%V", "%b", "%[", "%0", "%1", "%9",
		)
	}
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(fragments), 0, 5).Draw(r, "value"), "")
}
