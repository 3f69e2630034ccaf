package vassal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// Every step that fails says which, and nothing of the attempt is left.
func TestStartThatFails(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	c := newCgroup(t)
	nettest.NoLeaks(t)
	dir := t.TempDir()
	noInterpreter := filepath.Join(dir, "script")
	if err := os.WriteFile(noInterpreter, []byte("#!/no/such/shell\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o622); err != nil {
		t.Fatal(err)
	}
	failing := func(ph Phase) []Hook { return []Hook{{Phase: ph, Action: "exec", Args: "sleep 1000 & exit 7"}} }
	for name, tc := range map[string]struct {
		change func(*Plan)
		want   string
	}{
		"hook post-jail":    {func(p *Plan) { p.Hooks = failing(PostJail) }, "exit status 7"},
		"hook as-root":      {func(p *Plan) { p.Hooks = failing(AsRoot) }, "exit status 7"},
		"hook as-user":      {func(p *Plan) { p.Hooks = failing(AsUser) }, "exit status 7"},
		"forged hook":       {func(p *Plan) { p.Hooks = []Hook{{Phase: AsRoot, Action: "fly"}} }, "unknown action"},
		"chroot":            {func(p *Plan) { p.Chroot = "/no/such/dir" }, "chroot /no/such/dir: no such file"},
		"chdir":             {func(p *Plan) { p.Chdir = "/no/such/dir" }, "chdir"},
		"chdir as user":     {func(p *Plan) { p.Chdir, p.UID = "/root", 61200 }, "permission denied"},
		"no command":        {func(p *Plan) { p.Args = []string{"no-such-command"} }, `command "no-such-command"`},
		"no program":        {func(p *Plan) { p.Args = []string{"/no/such/program"} }, "/no/such/program"},
		"no interpreter":    {func(p *Plan) { p.Args = []string{noInterpreter} }, "the interpreter in its first line"},
		"logto":             {func(p *Plan) { p.LogTo = "/no/such/dir/log" }, "logto /no/such/dir/log"},
		"logto, a device":   {func(p *Plan) { p.LogTo = "/dev/null" }, "not a regular file"},
		"logto, a fifo":     {func(p *Plan) { p.LogTo = fifo }, "logto"},
		"logto as owner":    {func(p *Plan) { p.LogTo, p.LogUID, p.UID, p.GID = "/root/log", 61200, 61200, 61200 }, "permission denied"},
		"settings too big":  {func(p *Plan) { p.Env = []string{"A=" + strings.Repeat("x", maxMessage)} }, "at most"},
		"one long variable": {func(p *Plan) { p.Env = []string{"A=" + strings.Repeat("x", 140<<10)} }, "argument list too long"},
		"reaper":            {func(p *Plan) { p.Reaper, p.Args = true, []string{"/no/such/program"} }, "/no/such/program"},
	} {
		for _, with := range []string{"cgroup", "no cgroup"} {
			t.Run(name+", "+with, func(t *testing.T) {
				p := planOf("exit 0")
				tc.change(&p)
				l := Launch{Plan: p}
				if p.Reaper {
					l.Namespaces = unix.CLONE_NEWPID
				}
				if with == "cgroup" {
					var err error
					if l.Cgroup, err = c.Make("failing"); err != nil {
						t.Fatal(err)
					}
				}
				_, err := tryStart(t, j, l)
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				if left := processesIn(t, j.Inode); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				if l.Cgroup != "" {
					if _, err := os.Stat(string(l.Cgroup)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("cgroup left: %v", err)
					}
				}
			})
		}
	}
}

// processesIn lists the pids in a namespace.
func processesIn(t *testing.T, inode uint64) []int {
	t.Helper()
	var pids []int
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && livesIn(pid, inode) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestStartThatIsCancelled(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	for _, reaper := range []bool{false, true} {
		for _, ph := range []Phase{PostJail, AsRoot, AsUser} {
			t.Run(fmt.Sprintf("%s, reaper %v", ph, reaper), func(t *testing.T) {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				defer w.Close()
				p := planOf("exit 0")
				p.Reaper = reaper
				p.Hooks = []Hook{{Phase: ph, Action: "exec", Args: "trap '' TERM; setsid sleep 1000 & echo in; sleep 1000"}}
				l := Launch{Plan: p, Output: w}
				if reaper {
					l.Namespaces = unix.CLONE_NEWPID
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error)
				go func() {
					g, err := j.Start(ctx, l)
					if err == nil {
						g.Kill()
						g.Wait()
					}
					done <- err
				}()
				if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
					t.Fatal(err)
				}
				cancel()
				select {
				case err := <-done:
					if err == nil {
						t.Error("started although it was cancelled")
					}
				case <-time.After(15 * time.Second):
					t.Fatal("the start goes on")
				}
				if left := processesIn(t, j.Inode); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

func TestStartCancelledBefore(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Start(ctx, Launch{Plan: planOf("exit 0"), Output: os.Stderr}); err == nil {
		t.Error("it started")
	}
}

func TestStartLeavesNothing(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	c := newCgroup(t)
	nettest.NoLeaks(t)
	for i := range 20 {
		child, err := c.Make(strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		out, exit := startApp(t, j, Launch{Plan: planOf("ls /proc/self/fd | wc -l"), Cgroup: child}).end(t)
		if out != "4\n" || exit.Code != 0 { // 3 is ls's own
			t.Fatalf("start %d: %q, %v", i, out, exit)
		}
	}
}
