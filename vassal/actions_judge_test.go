package vassal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
)

// Each action does what the real uWSGI's does, with the same success: the
// binary of the distribution is the judge. (Beyond it we know the first of four
// digits of a mode, modes of two, and the mount flag defaults.)
func TestActionsAsUWSGI(t *testing.T) {
	nettest.Root(t)
	uwsgi := nettest.Program(t, "uwsgi-core")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{
		"cd:sub", "chdir:sub", "cd:none", "cd:",
		"mkdir:new", "mkdir:new one", "mkdir:sub", "mkdir:a/b",
		"putenv:A=b c", "putenv:A",
		"chmod:f 640", "chmod:f 0600", "chmod:none 640", "chmod:f",
		"sticky:f", "sticky:sub", "sticky:none",
		"chown:f nobody nogroup", "chown:f nobody none", "chown:f nobody", "chown2:f 61 62", "chown2:f nobody nogroup", "chown2:f 61",
		"exec:echo hi >new", "exec:exit 3", "safeexec:echo hi >new; exit 3", "exec:",
		"creat:new", "create:new one", "creat:f", "creat:none/new",
		"write:f x y", "write:new x", "write:f", "write: f x", "writen:f x  y", "writen:new", "append:f x", "append:f", "appendn:f x", "appendn:f", "appendn:new",
		"writefifo:f x", "writefifo:fifo x", "writefifo:none x", "writefifo:f", "spinningfifo:f x", "spinningfifo:f",
		"unlink:f", "unlink:sub", "unlink:none",
		"mount:tmpfs none sub", "mount:tmpfs none sub nodev,noexec", "mount:tmpfs none sub nosuid mode=711,size=1m", "mount:none sub sub bind,rec", "mount:tmpfs none none", "mount:tmpfs none", "mount:tmpfs none sub fly",
		"umount:mounted", "umount:mounted rec,detach", "umount:mounted detach,force", "umount:sub", "umount:mounted fly",
		"hostname:named", "print:hi", "log:", "wait_for_fs:f", "wait_for_file:f", "wait_for_dir:sub",
		"fly:away", "exec",
	} {
		t.Run(h, func(t *testing.T) {
			dir := t.TempDir()
			theirs := judged(t, dir, uwsgi, "--hook-as-root", h, "--hook-as-root", "exec:"+outcome, "--hook-as-root", "exit:0")
			t.Setenv(judgedAction, h)
			ours := judged(t, dir, self)
			if ours != theirs {
				t.Errorf("uWSGI left:\n%s\nwe left:\n%s", theirs, ours)
			}
		})
	}
}

// outcome is what an action can have changed.
const outcome = `{ pwd; hostname; echo "A is $A"; grep " $JUDGE/" /proc/self/mountinfo | cut -d' ' -f4-6,8-; cd $JUDGE; find . -printf '%p %y %m %U %G\n' | sort; cat f; cat new 'new one'; } >$JUDGE.out 2>/dev/null; true`

// judgedAction is the variable that has this program do one action for the judge.
const judgedAction = "FIEFDOM_TEST_ACTION"

// actForJudge is our side: one action, and what it has changed. It returns the
// exit code.
func actForJudge(action string) int {
	var hooks []Hook
	for key, value := range map[string]string{"hook-as-root": action, "exec-as-root": outcome} {
		f, err := ini.Load("judge.ini", ini.Options{ReadFile: func(string) ([]byte, error) {
			return []byte("[uwsgi]\n" + key + " = " + strings.ReplaceAll(value, "%", "%%") + "\n"), nil
		}})
		if err == nil {
			if errs := ini.Decode(&hooks, HookOptions, f.Pairs); errs.Failed() {
				err = errs
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := RunHooks(context.Background(), PhaseOf(hooks, AsRoot), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// judged runs a command that performs an action in dir, freshly furnished, and
// in namespaces of its own. It says how the command ended and what has changed.
func judged(t *testing.T, dir string, command ...string) string {
	t.Helper()
	const script = `set -e
rm -f $JUDGE.out
mount -t tmpfs -o mode=755 none $JUDGE
mkdir $JUDGE/sub $JUDGE/mounted
cd $JUDGE
printf old >f
chmod 644 f
mkfifo fifo
mount -t tmpfs -o mode=755 none mounted
mkdir mounted/deep
mount -t tmpfs -o mode=755 none mounted/deep
hostname judged
set +e
"$@" >/dev/null 2>&1
echo "exit $?"
cat $JUDGE.out 2>/dev/null
true`
	run := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"-c", script, "judge"}, command...)...)
	run.Env = append(os.Environ(), "JUDGE="+dir)
	run.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("judge: %v\n%s", err, out)
	}
	return string(out)
}
