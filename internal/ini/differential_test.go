package ini

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
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

// caseLimits are for a bug in the files that the tests make, which may ask for
// an endless expansion: 2 s of processor time, 300 MB.
const caseLimits = "ulimit -t 2; ulimit -v 300000; "

// show is what uwsgi --show-config makes of dir/file; false if it refuses the
// file. It exits by itself for want of a socket.
func (u realUWSGI) show(t *testing.T, dir, file string, env []string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", caseLimits+`exec "$0" "$@"`, u.binary, "--show-config", "--ini", file)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s %s does not end: %s", u.binary, file, out)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("run %s: %v", u.binary, err)
	}
	return configOf(string(out), file)
}

// configOf cuts the configuration out of what uwsgi wrote, without the options
// of its command line.
func configOf(out, file string) (string, bool) {
	_, config, ok := strings.Cut(out, "\n[uwsgi]\n")
	if !ok {
		return out, false
	}
	config, _, ok = strings.Cut(config, ";end of configuration\n")
	return strings.Replace(config, "show-config = true\nini = "+file+"\n", "", 1), ok
}

// loadOptions make Load the same as uwsgi in that place.
func (u realUWSGI) loadOptions(dir string, env []string) Options {
	lookup := func(name string) (string, bool) {
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			return "", false
		}
		return env[i][len(name)+1:], true
	}
	_, reload := lookup("UWSGI_RELOADS")
	return Options{
		Dir: dir, Sections: []string{"uwsgi"}, Binary: u.binary, Environ: env, LookupEnv: lookup, Reload: reload,
		IsOption: func(name string) bool { return u.options[name] },
		Vars:     map[byte]string{'V': u.version},
		Resolve: func(host string) (string, error) {
			a, err := netip.ParseAddr(host)
			return a.String(), err
		},
	}
}

// load is what we make of a file; false if we refuse it.
func (u realUWSGI) load(file string, o Options) (string, bool) {
	f, err := Load(file, o)
	if err == nil && f.Strict {
		if unknown := Unknown(f, o.IsOption, nil, nil); unknown.Failed() {
			err = unknown
		}
	}
	if err != nil {
		return err.Error(), false
	}
	return render(f.Pairs), true
}

// compare loads dir/file with both and reports a difference.
func (u realUWSGI) compare(t *testing.T, dir, file string, env []string) {
	t.Helper()
	want, accepted := u.show(t, dir, file, env)
	got, ok := u.load(file, u.loadOptions(dir, env))
	if difference := differ(got, ok, want, accepted); difference != "" {
		text, _ := os.ReadFile(filepath.Join(dir, file))
		t.Errorf("%s\n%s", text, difference)
	}
}

// differ says how two results differ; those that refuse the file are the same.
func differ(got string, ok bool, want string, accepted bool) string {
	switch {
	case ok != accepted:
		return fmt.Sprintf("we say %v: %s\nuwsgi says %v: %s", ok, got, accepted, want)
	case !ok || got == want:
		return ""
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	i := 0
	for i < min(len(gotLines), len(wantLines))-1 && gotLines[i] == wantLines[i] {
		i++
	}
	return fmt.Sprintf("got  %q\nwant %q\nand %d or %d lines more", gotLines[i], wantLines[i], len(gotLines)-i-1, len(wantLines)-i-1)
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
			u.compare(t, dir, filepath.Base(file), []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "CASE_HOME=/home/case"})
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
			u.compare(t, dir, file, []string{"PATH=" + os.Getenv("PATH")})
		})
	}
}
