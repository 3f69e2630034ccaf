package vassal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// settle starts a generation without an app, which ends with the test.
func settle(t *testing.T, j *Jail, l Launch) *started {
	t.Helper()
	l.Plan.Args = nil
	if l.Cgroup == "" {
		l.Cgroup = newCgroup(t)
	}
	return startApp(t, j, l)
}

// join starts a process in it.
func (s *started) join(t *testing.T, l Launch) (*started, error) {
	t.Helper()
	if l.Cgroup == "" {
		var err error
		if l.Cgroup, err = s.cgroup.Make(fmt.Sprintf("p%d", time.Now().UnixNano())); err != nil {
			return nil, err
		}
	}
	return startWith(t, l, s.Join)
}

func (s *started) mustJoin(t *testing.T, l Launch) *started {
	t.Helper()
	p, err := s.join(t, l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Who joins is where the hooks have been, and runs none again.
func TestJoin(t *testing.T) {
	nettest.NoLeaks(t)
	for _, c := range []struct {
		name       string
		namespaces uintptr
		reaper     bool
	}{
		{"network alone", 0, false},
		{"mounts", unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC, false},
		{"pids too", unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "fiefdom-vassal-test-") // where every uid may go
			if err == nil {
				err = os.Chmod(dir, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			plan := planOf("")
			plan.UID, plan.GID, plan.Chdir = 61234, 61234, dir
			plan.Mounts, plan.Proc, plan.Reaper = c.namespaces&unix.CLONE_NEWNS != 0, c.reaper, c.reaper
			plan.Hooks = []Hook{
				{Phase: AsRoot, Action: "exec", Args: "echo once >>" + filepath.Join(dir, "hooks")},
				{Phase: AsRoot, Action: "putenv", Args: "MOOD=joined"},
			}
			if plan.Mounts {
				plan.Hooks = append(plan.Hooks, Hook{Phase: AsRoot, Action: "exec", Args: "hostname inside; mount -t tmpfs tmpfs /mnt; echo shared >/mnt/file"})
			}
			base := settle(t, newJail(t), Launch{Plan: plan, Namespaces: c.namespaces})

			script := `id -u; echo $MOOD; pwd; cat /mnt/file 2>/dev/null; for n in net mnt pid uts ipc; do readlink /proc/self/ns/$n; done; ls /proc/self/fd | tr '\n' ' '`
			var said []string
			for range 2 {
				l := Launch{Plan: planOf(script)}
				l.Plan.UID, l.Plan.GID = plan.UID, plan.GID
				out, exit := base.mustJoin(t, l).end(t)
				if exit != (Exit{}) {
					t.Fatalf("%v after %q", exit, out)
				}
				said = append(said, out)
			}
			want := "61234\njoined\n" + dir + "\n"
			if plan.Mounts {
				want += "shared\n"
			}
			if !strings.HasPrefix(said[0], want) || said[0] != said[1] {
				t.Errorf("want %q first, and the same twice; got\n%s\nand\n%s", want, said[0], said[1])
			}
			if !strings.HasSuffix(said[0], "\n0 1 2 3 ") { // 3 is that of ls itself
				t.Errorf("it has descriptors of others: %q", said[0])
			}
			for kind, own := range map[string]bool{"net": true, "mnt": plan.Mounts, "pid": c.reaper, "uts": plan.Mounts} {
				ours, err := os.Readlink("/proc/self/ns/" + kind)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(said[0], ours) == own {
					t.Errorf("%s: the emperor's is %s, own: %v:\n%s", kind, ours, own, said[0])
				}
			}
			if b, err := os.ReadFile(filepath.Join(dir, "hooks")); err != nil || string(b) != "once\n" {
				t.Errorf("hooks ran: %q, %v", b, err)
			}
		})
	}
}

// One's end is not the others'; the generation's is everybody's.
func TestEndOfJoined(t *testing.T) {
	nettest.NoLeaks(t)
	for _, reaper := range []bool{false, true} {
		t.Run(fmt.Sprintf("reaper %v", reaper), func(t *testing.T) {
			l := Launch{Plan: planOf("")}
			if reaper {
				l.Namespaces, l.Plan.Reaper = unix.CLONE_NEWPID, true
			}
			base := settle(t, newJail(t), l)
			lasting := base.mustJoin(t, Launch{Plan: planOf("trap '' TERM; setsid sleep 1000 & echo up; sleep 1000")})
			lasting.line(t)
			short := base.mustJoin(t, Launch{Plan: planOf("exit 3")})
			if exit := short.Wait(); exit.Code != 3 {
				t.Errorf("the short one: %v", exit)
			}
			if err := lasting.process.Signal(unix.Signal(0)); err != nil {
				t.Errorf("the lasting one went with it: %v", err)
			}
			base.Kill()
			if exit := lasting.Wait(); exit.Signal != unix.SIGKILL {
				t.Errorf("the lasting one: %v", exit)
			}
			if exit := base.Wait(); exit.Err != nil {
				t.Error(exit.Err)
			}
			if _, err := base.join(t, Launch{Plan: planOf("true")}); err == nil {
				t.Error("a generation that is over took one more")
			}
		})
	}
}

// A stop signal reaches the children of the shell.
func TestGroupSignal(t *testing.T) {
	base := settle(t, newJail(t), Launch{Plan: planOf("")})
	p := base.mustJoin(t, Launch{Group: true, Plan: planOf(`sh -c 'trap "echo child; exit" TERM; echo up; while :; do sleep 0.1; done'; echo parent`)})
	p.line(t)
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out, _ := p.end(t); !strings.Contains(out, "child\n") {
		t.Errorf("the child was not told: %q", out)
	}
}

// A daemon that goes into the background is followed, and nobody else whose
// pid the pidfile may name.
func TestFollow(t *testing.T) {
	nettest.NoLeaks(t)
	for _, pids := range []bool{false, true} {
		t.Run(fmt.Sprintf("pid namespace %v", pids), func(t *testing.T) {
			l := Launch{Plan: planOf("")}
			if pids {
				l.Namespaces, l.Plan.Reaper = unix.CLONE_NEWPID|unix.CLONE_NEWNS, true
				l.Plan.Mounts, l.Plan.Proc = true, true
			}
			base := settle(t, newJail(t), l)
			pidfile := filepath.Join(t.TempDir(), "pid")
			if err := os.WriteFile(pidfile, fmt.Append(nil, os.Getpid()), 0o644); err != nil { // a stranger
				t.Fatal(err)
			}
			followed := make(chan int, 1)
			p := base.mustJoin(t, Launch{
				Pidfile: pidfile, Patience: 20 * time.Second, Followed: func(pid int) { followed <- pid },
				Plan: planOf(`setsid sh -c 'echo $$ >` + pidfile + `; exec sleep 1000' & exit 0`),
			})
			var exit Exit
			over := make(chan struct{})
			go func() { defer close(over); exit = p.Wait() }()
			select {
			case pid := <-followed:
				if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(comm) != "sleep\n" && string(comm) != "sh\n" {
					t.Errorf("followed %d, %q, %v", pid, comm, err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("nobody was followed")
			}
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-over
			if !exit.Followed || exit.Err != nil {
				t.Errorf("%+v", exit)
			}
		})
	}
}

func TestFollowNobody(t *testing.T) {
	base := settle(t, newJail(t), Launch{Plan: planOf("")})
	pidfile := filepath.Join(t.TempDir(), "pid")
	never := func(pid int) { t.Errorf("followed %d", pid) }
	for _, c := range []struct{ name, content, script string }{
		{"stranger", fmt.Sprint(os.Getpid()), "setsid sleep 1000 & exit 0"},
		{"no number", "no number", "setsid sleep 1000 & exit 0"},
		{"nobody left", "1", "exit 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(pidfile, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			p := base.mustJoin(t, Launch{Pidfile: pidfile, Patience: 200 * time.Millisecond, Followed: never, Plan: planOf(c.script)})
			if exit := p.Wait(); exit.Err != nil || exit.Followed {
				t.Errorf("%+v", exit)
			}
		})
	}
}

// A pid namespace of its own, with and without one of the generation.
func TestNest(t *testing.T) {
	nettest.NoLeaks(t)
	for _, reaper := range []bool{false, true} {
		t.Run(fmt.Sprintf("reaper %v", reaper), func(t *testing.T) {
			l := Launch{Plan: planOf("")}
			if reaper {
				l.Namespaces, l.Plan.Reaper = unix.CLONE_NEWPID, true
			}
			base := settle(t, newJail(t), l)
			nested := Launch{Group: true, Plan: planOf(`trap 'exit 7' TERM; echo $$; while :; do sleep 0.1; done`)}
			nested.Plan.Nest = true
			p := base.mustJoin(t, nested)
			if pid, err := strconv.Atoi(p.line(t)); err != nil || pid > 50 { // a reaper's threads have numbers too
				t.Errorf("its pid is %d, want one of the first in its namespace; %v", pid, err)
			}
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if exit := p.Wait(); exit.Code != 7 || exit.Err != nil {
				t.Errorf("%+v", exit)
			}
			nested.Plan.Args = []string{"sleep", "1000"}
			p = base.mustJoin(t, nested)
			if err := p.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			if exit := p.Wait(); exit.Signal != unix.SIGUSR1 || exit.Err != nil {
				t.Errorf("%+v", exit)
			}
		})
	}
}

func TestWritePidfile(t *testing.T) {
	base := settle(t, newJail(t), Launch{Plan: planOf("")})
	l := Launch{Plan: planOf("cat pid; echo $$")}
	l.Plan.Chdir, l.Plan.Pidfile = t.TempDir(), "pid"
	out, exit := base.mustJoin(t, l).end(t)
	if first, second, _ := strings.Cut(strings.TrimSpace(out), "\n"); exit.Code != 0 || first != second || first == "" {
		t.Errorf("%v, %q", exit, out)
	}
	l.Plan.Pidfile = "/no/such/folder/pid"
	if _, err := base.join(t, l); err == nil || !strings.Contains(err.Error(), "pidfile: open /no/such/folder/pid") {
		t.Errorf("%v", err)
	}
}

func TestTouched(t *testing.T) {
	base := settle(t, newJail(t), Launch{Plan: planOf("")})
	path := filepath.Join(t.TempDir(), "touch")
	if at := base.Touched(path); at != 0 {
		t.Errorf("not there: %d", at)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if at := base.Touched(path); at != st.ModTime().UnixNano() {
		t.Errorf("%d, want %d", at, st.ModTime().UnixNano())
	}
}

func TestJoinErrors(t *testing.T) {
	j := newJail(t)
	app := startApp(t, j, Launch{Plan: planOf("sleep 1000"), Cgroup: newCgroup(t)})
	if _, err := app.Join(t.Context(), Launch{}); err == nil || !strings.Contains(err.Error(), "has an app") {
		t.Errorf("%v", err)
	}
	base := settle(t, j, Launch{Plan: planOf("")})
	l := Launch{Plan: planOf("")}
	l.Plan.Args = []string{"/no/such/program"}
	if _, err := base.join(t, l); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := base.Join(ctx, Launch{Plan: planOf("sleep 1000"), Output: os.Stdout}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
