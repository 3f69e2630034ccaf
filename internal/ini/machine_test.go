package ini

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/nettest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// write makes the files of a test in a folder of its own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadFileOnlyRegularAndShort(t *testing.T) {
	dir := write(t, map[string]string{"just": strings.Repeat("x", maxFile), "long": strings.Repeat("x", maxFile+1)})
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(dir+"/just", nil); err != nil || len(data) != maxFile {
		t.Errorf("just: %d bytes, %v", len(data), err)
	}
	if data, err := ReadFile("/proc/self/comm", nil); err != nil || len(data) == 0 {
		t.Errorf("a file of /proc, which has no size: %q, %v", data, err)
	}
	refuse := errors.New("not this one")
	if _, err := ReadFile(dir+"/just", func(st *unix.Stat_t) error {
		if st.Size != maxFile {
			t.Errorf("asked about a file of %d bytes", st.Size)
		}
		return refuse
	}); !errors.Is(err, refuse) {
		t.Errorf("a refused file: %v", err)
	}
	for name, want := range map[string]string{
		dir + "/long": "it has more than 1048576 bytes",
		dir + "/fifo": "it is not a regular file (p---------)",
		dir:           "it is not a regular file (d---------)",
		os.DevNull:    "it is not a regular file (Dc---------)",
		dir + "/none": "no such file or directory",
	} {
		if _, err := ReadFile(name, nil); err == nil || reason(err) != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestShell(t *testing.T) {
	defer goleak.VerifyNone(t)
	run := shell(t.TempDir(), nil, time.Minute)
	for _, tt := range []struct{ name, command, out, err string }{
		{"output", "echo hi; pwd >&2", "hi\n", ""},
		{"exit status", "echo hi; exit 3", "hi\n", "exit status 3"},
		{"endless output", "yes", "", errOutput.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := run(tt.command)
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if !strings.HasPrefix(string(out), tt.out) || len(out) > maxFile {
				t.Errorf("%d bytes of output, want %q", len(out), tt.out)
			}
		})
	}
}

func TestShellTime(t *testing.T) {
	defer goleak.VerifyNone(t)
	run := shell(t.TempDir(), nil, 50*time.Millisecond)
	for range 2 { // the second has no time left at all
		if _, err := run("sleep 1000"); err == nil || err.Error() != "it takes longer than 50ms" {
			t.Errorf("got %v", err)
		}
	}
}

// TestShellEndsTheWholeGroup: a command that writes without end is ended with
// the processes that it started.
func TestShellEndsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	if _, err := shell(dir, nil, time.Minute)("sleep 1000 & echo $! >child; yes"); err == nil {
		t.Fatal("no error")
	}
	pid, err := os.ReadFile(dir + "/child")
	if err != nil {
		t.Fatal(err)
	}
	stat := "/proc/" + strings.TrimSpace(string(pid)) + "/stat"
	nettest.Eventually(t, 10*time.Second, "the child ends", func() bool {
		state, err := os.ReadFile(stat)
		return err != nil || strings.Contains(string(state), ") Z ") // gone, or waiting for its new parent
	})
}

func TestGlob(t *testing.T) {
	dir := write(t, map[string]string{"b.ini": "", "a.ini": "", ".hidden.ini": "", "sub/c.ini": "", ".dir/d.ini": "", "[x].ini": ""})
	for _, tt := range []struct {
		pattern string
		want    []string
	}{
		{"*.ini", []string{"[x].ini", "a.ini", "b.ini"}},
		{"s*", []string{"sub/"}},
		{"*/*.ini", []string{"sub/c.ini"}},
		{".h*", []string{".hidden.ini"}},
		{".d*/*", []string{".dir/d.ini"}},
		{"[!b].ini", []string{"a.ini"}},
		{"[ab].ini", []string{"a.ini", "b.ini"}},
		{"none*", []string{"none*"}},
		{"[", []string{"["}},
		{"", []string{""}},
	} {
		t.Run(tt.pattern, func(t *testing.T) {
			for _, base := range []string{"", dir + "/"} {
				if tt.pattern == "" && base != "" {
					continue
				}
				l := newLoader(Options{Dir: dir})
				want := slices.Clone(tt.want)
				for i := range want {
					want[i] = base + want[i]
				}
				if got := l.globItems(base + tt.pattern); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	t.Run("a folder with a wildcard in its name", func(t *testing.T) {
		dir := write(t, map[string]string{"*/a.ini": "", "x/b.ini": ""})
		l := newLoader(Options{Dir: dir + "/*"})
		if got, want := l.globItems("*.ini"), []string{"a.ini"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestAbsoluteKeepsTheLinkItself(t *testing.T) {
	dir, err := filepath.EvalSymlinks(write(t, map[string]string{"real/a.ini": ""}))
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"l.ini": "real/a.ini", "ld": "real"} {
		if err := os.Symlink(to, dir+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"l.ini": "l.ini", "ld/a.ini": "real/a.ini", "./real/../l.ini": "./real/../l.ini", "real//a.ini": "real/a.ini",
	} {
		if got, err := absolute(dir + "/" + name); err != nil || got != dir+"/"+want {
			t.Errorf("%s: got %s, %v; want %s", name, got, err, dir+"/"+want)
		}
	}
	t.Chdir(dir)
	for name, want := range map[string]string{"l.ini": "l.ini", "ld/a.ini": "real/a.ini"} {
		if got, err := absolute(name); err != nil || got != dir+"/"+want {
			t.Errorf("%s: got %s, %v; want %s", name, got, err, dir+"/"+want)
		}
	}
}
