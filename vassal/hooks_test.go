package vassal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
)

func TestPhaseOf(t *testing.T) {
	c := good(t, `command = a
exec-as-root = exec1
hook-as-root = log:hook1
exec-as-user = other
umount-as-root = umount1
hook-post-jail = log:before
mount-as-root = a b mount1
hook-as-root = log:hook2
exec-as-root = exec2`)
	for phase, want := range map[Phase][]string{
		PostJail: {"log before"},
		AsRoot:   {"log hook1", "log hook2", "mount a b mount1", "umount umount1", "exec exec1", "exec exec2"},
		AsUser:   {"exec other"},
	} {
		var got []string
		for _, h := range PhaseOf(c.Hooks, phase) {
			got = append(got, h.String())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", phase, got, want)
		}
	}
}

// hook runs one action in a folder of the test's own.
func hook(t *testing.T, action, args string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := RunHooks(t.Context(), []Hook{{Phase: AsRoot, Action: action, Args: args, Pos: ini.Pos{File: "a.ini", Line: 3}}}, &out)
	return out.String(), err
}

func TestActions(t *testing.T) {
	read := func(want string) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			if err != nil || string(b) != want {
				t.Errorf("got %q, %v, want %q", b, err, want)
			}
		}
	}
	mode := func(want fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			st, err := os.Stat(file)
			if err != nil || st.Mode() != want {
				t.Errorf("got %v, %v, want %v", st.Mode(), err, want)
			}
		}
	}
	gone := func(t *testing.T, file string) {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	}
	for name, tc := range map[string]struct {
		action, args string // FILE is a file with "old", NEW one that is not there
		file         string
		check        func(t *testing.T, file string)
	}{
		"exec":       {"exec", "echo hi there >NEW", "NEW", read("hi there\n")},
		"safeexec":   {"safeexec", "echo hi >NEW; exit 3", "NEW", read("hi\n")},
		"mkdir":      {"mkdir", "NEW", "NEW", mode(fs.ModeDir | 0o777)},
		"unlink":     {"unlink", "FILE", "FILE", gone},
		"create":     {"create", "NEW", "NEW", read("")},
		"creat":      {"creat", "FILE", "FILE", read("")},
		"chmod":      {"chmod", "FILE 640", "FILE", mode(0o640)},
		"chmod set":  {"chmod", "FILE 4755", "FILE", mode(fs.ModeSetuid | 0o755)},
		"sticky":     {"sticky", "FILE", "FILE", mode(fs.ModeSticky | 0o644)},
		"blanks":     {"creat", "NEW one", "NEW one", read("")},
		"empty line": {"appendn", "FILE", "FILE", read("old\n")},
		"no reader":  {"writefifo", "FILE x", "FILE", read("xld")},
		"write":      {"write", "FILE new  text", "FILE", read("new  text")},
		"writen":     {"writen", "FILE new", "FILE", read("new\n")},
		"append":     {"append", "FILE new", "FILE", read("oldnew")},
		"appendn":    {"appendn", "FILE new", "FILE", read("oldnew\n")},
		"write new":  {"write", "NEW x", "NEW", read("x")},
		"wait":       {"wait_for_fs", "FILE", "FILE", read("old")},
		"wait file":  {"wait_for_file", "FILE", "FILE", read("old")},
		"wait dir":   {"wait_for_dir", ".", "FILE", read("old")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			defer unix.Umask(unix.Umask(0))
			if err := os.WriteFile("FILE", []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := hook(t, tc.action, tc.args); err != nil || out != "" {
				t.Fatalf("%q, %v", out, err)
			}
			tc.check(t, tc.file)
		})
	}
}

func TestActionsThatFail(t *testing.T) {
	for name, tc := range map[string]struct{ action, args, want string }{
		"exec":             {"exec", "echo why; exit 3", "exit status 3: why"},
		"exec, no command": {"exec", "no-such-command-at-all", "not found"},
		"exec, signal":     {"exec", "kill -KILL $$", "signal: killed"},
		"exec, by SIGTERM": {"exec", "kill -TERM $$", "signal: terminated"},
		"mkdir twice":      {"mkdir", "FILE", "file exists"},
		"mkdir, no words":  {"mkdir", "", "want an argument"},
		"exit":             {"exit", "26", "exit code 26"},
		"call":             {"call", "f", "which alone has C functions"},
		"alarm":            {"alarm", "a b", "which alone has alarms"},
		"fifo, one word":   {"spinningfifo", "FILE", "want FIFO TEXT"},
		"append, one word": {"append", "FILE", "want FILE TEXT"},
		"unlink":           {"unlink", "NEW", "no such file"},
		"cd":               {"cd", "NEW", "no such file"},
		"chmod, mode":      {"chmod", "FILE 9", "octal"},
		"chmod, too much":  {"chmod", "FILE 17777", "octal"},
		"chmod, one word":  {"chmod", "FILE", "want 2 words"},
		"chown, user":      {"chown", "FILE no-such-user root", "no-such-user"},
		"chown, group":     {"chown", "FILE root no-such-group", "no-such-group"},
		"chown2, names":    {"chown2", "FILE root root", "invalid syntax"},
		"write, one word":  {"write", "FILE", "want FILE TEXT"},
		"writefifo":        {"writefifo", "NEW x", "no such file"},
		"mount, words":     {"mount", "a b", "want TYPE SOURCE TARGET"},
		"mount, flag":      {"mount", "a b c fly", `unknown mount flag "fly"`},
		"umount, words":    {"umount", "", "want TARGET"},
		"umount, flag":     {"umount", "/ fly", `unknown umount flag "fly"`},
		"no such action":   {"fly", "away", `unknown action "fly"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile("FILE", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := hook(t, tc.action, tc.args)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "a.ini:3: ") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestHooksStopAtTheFirstFailure(t *testing.T) {
	var out bytes.Buffer
	hooks := []Hook{{Phase: AsRoot, Action: "print", Args: "one"}, {Phase: AsRoot, Action: "exec", Args: "false"}, {Phase: AsRoot, Action: "print", Args: "two"}}
	if err := RunHooks(t.Context(), hooks, &out); err == nil {
		t.Error("no error")
	}
	if out.String() != "one\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestHiddenHookIsNotTold(t *testing.T) {
	err := RunHooks(t.Context(), []Hook{{Phase: AsRoot, Action: "exec", Args: "exit 3 # password", Hidden: true}}, new(bytes.Buffer))
	if err == nil || strings.Contains(err.Error(), "password") {
		t.Errorf("got %v", err)
	}
}

func TestPutenvAndChdir(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("FIEFDOM_TEST_HOOK", "")
	if err := os.Mkdir("sub", 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := "", error(nil)
	for _, h := range [][2]string{{"putenv", "FIEFDOM_TEST_HOOK=a=b"}, {"chdir", "sub"}, {"cd", "../sub"}} {
		if _, err = hook(t, h[0], h[1]); err != nil {
			t.Fatal(err)
		}
	}
	if out, err = hook(t, "exec", "echo $FIEFDOM_TEST_HOOK; pwd"); err != nil || out != "a=b\n"+filepath.Join(dir, "sub")+"\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestWritefifo(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := unix.Mkfifo("FIFO", 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile("FIFO", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := hook(t, "writefifo", "FIFO on"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "on" {
		t.Errorf("got %q, %v", b[:n], err)
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	err := RunHooks(ctx, []Hook{{Phase: AsRoot, Action: "wait_for_socket", Args: t.TempDir()}}, new(bytes.Buffer))
	if err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// A hook that leaves a daemon behind, which keeps the hook's output open, is done.
func TestExecLeavesADaemon(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := hook(t, "exec", "sleep 60 & echo $! >PID"); err != nil {
		t.Fatal(err)
	}
	if _, err := hook(t, "exec", "kill -KILL $(cat PID)"); err != nil {
		t.Error(err)
	}
}

func TestChown(t *testing.T) {
	nettest.Root(t)
	t.Chdir(t.TempDir())
	for _, tc := range []struct {
		action, args string
		uid          uint32
	}{{"chown", "FILE nobody nogroup", 65534}, {"chown2", "FILE 61 62", 61}} {
		if err := os.WriteFile("FILE", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := hook(t, tc.action, tc.args); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat("FILE", &st); err != nil || st.Uid != tc.uid {
			t.Errorf("%s: uid %d, %v", tc.action, st.Uid, err)
		}
	}
}

func TestTailKeepsTheLastLine(t *testing.T) {
	for name, tc := range map[string]struct {
		writes []string
		want   string
	}{
		"nothing":   {nil, ""},
		"one":       {[]string{"a\n"}, "a"},
		"last":      {[]string{"a\nb\n"}, "b"},
		"in pieces": {[]string{"a\nb", "c", "\n"}, "bc"},
		"blank end": {[]string{"a\n", "\n\n"}, "a"},
		"long":      {[]string{strings.Repeat("x", 1000)}, strings.Repeat("x", 400)},
	} {
		t.Run(name, func(t *testing.T) {
			var last tail
			for _, w := range tc.writes {
				if n, err := last.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatal(n, err)
				}
			}
			if got := last.String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
