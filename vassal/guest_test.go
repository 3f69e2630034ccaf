package vassal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// enter starts a command beside the app.
func (s *started) enter(t *testing.T, args ...string) (*started, error) {
	t.Helper()
	l := Launch{Plan: s.Beside(args)}
	var err error
	if l.Cgroup, err = s.Cgroup().Make(fmt.Sprintf("exec%d", time.Now().UnixNano())); err != nil {
		t.Fatal(err)
	}
	return startWith(t, l, s.Enter)
}

func (s *started) mustEnter(t *testing.T, script string) *started {
	t.Helper()
	guest, err := s.enter(t, "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return guest
}

// await waits for a line that the app wrote first.
func (s *started) await(t *testing.T, line string) {
	t.Helper()
	b := make([]byte, len(line)+1)
	if n, err := s.output.Read(b); err != nil || string(b[:n]) != line+"\n" {
		t.Fatalf("it said %q, %v; want %q", b[:n], err, line)
	}
}

// A command beside the app is where the app is, with the app's rights less its
// capabilities.
func TestEnter(t *testing.T) {
	nettest.NoLeaks(t)
	for _, c := range []struct {
		name       string
		namespaces uintptr
		reaper     bool
	}{
		{"network alone", 0, false},
		{"mounts", unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC, false},
		{"pids too", unix.CLONE_NEWNS | unix.CLONE_NEWPID, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := planOf("echo up; exec sleep 100")
			plan.UID, plan.GID, plan.Groups, plan.SetGroups = 61234, 61235, []int{61236}, true
			plan.Caps, plan.KeepCaps, plan.Bounded = []string{"net_raw"}, true, true
			plan.CleanEnv, plan.Env = true, []string{"PATH=/usr/bin:/bin", "MOOD=good"}
			plan.Hooks = []Hook{{Phase: AsRoot, Action: "putenv", Args: "HOOK=ran"}}
			plan.Mounts, plan.Proc, plan.Reaper = c.namespaces&unix.CLONE_NEWNS != 0, c.reaper, c.reaper
			app := startApp(t, newJail(t), Launch{Plan: plan, Namespaces: c.namespaces, Cgroup: newCgroup(t)})
			app.await(t, "up")

			out, exit := app.mustEnter(t, `id -u; id -g; id -G; echo $MOOD $HOOK; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs)' /proc/self/status
for n in net mnt pid uts ipc; do readlink /proc/self/ns/$n; done; ls /proc/self/fd | tr '\n' ' '; exit 7`).end(t)
			if exit != (Exit{Code: 7}) {
				t.Errorf("%v, want its own code", exit)
			}
			want := "61234\n61235\n61235 61236\ngood ran\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n"
			for _, n := range []string{"net", "mnt", "pid", "uts", "ipc"} {
				link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", app.PID, n))
				if err != nil {
					t.Fatal(err)
				}
				want += link + "\n"
			}
			if want += "0 1 2 3 "; out != want {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
		})
	}
}

// Nobody stays beside an app that has ended, and nobody comes any more.
func TestGuestsEndWithTheApp(t *testing.T) {
	nettest.NoLeaks(t)
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	guest := app.mustEnter(t, "setsid sleep 100 & sleep 100")
	ended := make(chan Exit, 1)
	go func() { ended <- guest.Wait() }()
	app.Kill()
	app.Wait()
	select {
	case exit := <-ended:
		if exit != (Exit{Signal: unix.SIGKILL}) {
			t.Errorf("the guest's end: %v", exit)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the app has been waited for, and its guest has not ended")
	}
	if _, err := os.Stat(string(app.cgroup)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cgroup is left: %v", err)
	}
	if _, err := app.Enter(t.Context(), Launch{Plan: app.Beside([]string{"true"}), Output: os.Stderr}); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a command beside an app that has ended: %v", err)
	}
}

// Who is in the jail may stop a guest on its way, and keeps nobody waiting by it
// for longer than the app runs.
func TestGuestsStoppedOnTheirWay(t *testing.T) {
	nettest.NoLeaks(t)
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	l := Launch{Plan: app.Beside([]string{"true"}), Output: os.Stderr, Cloned: func(pid int) {
		for _, p := range []struct {
			pid int
			sig unix.Signal
		}{{pid, unix.SIGSTOP}, {app.PID, unix.SIGKILL}} {
			if err := unix.Kill(p.pid, p.sig); err != nil {
				t.Error(err)
			}
		}
	}}
	var err error
	if l.Cgroup, err = app.Cgroup().Make("exec"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go app.Wait()
	if _, err := app.Enter(ctx, l); err == nil || ctx.Err() != nil {
		t.Errorf("beside an app that has ended: %v", err)
	}
}

// A command that cannot be is said so, and leaves nothing.
func TestEnterFails(t *testing.T) {
	nettest.NoLeaks(t)
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	if _, err := app.enter(t, "/no/such/program"); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(string(app.cgroup), "exec*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// An app that made itself a place where it is root gets nobody of ours there.
func TestEnterNoPlaceOfTheApp(t *testing.T) {
	nettest.NoLeaks(t)
	plan := planOf("exec unshare --user --map-root-user --mount sh -c 'echo up; exec sleep 100'")
	plan.UID, plan.GID = 61234, 61234
	app := startApp(t, newJail(t), Launch{Plan: plan, Cgroup: newCgroup(t)})
	app.await(t, "up")
	if _, err := app.enter(t, "id"); err == nil || !strings.Contains(err.Error(), "user namespace") {
		t.Errorf("got %v", err)
	}
}

// An adopted app's pid may be anybody's as soon as the app has ended: whoever
// has it by then gets nobody of ours.
func TestEnterNobodyElse(t *testing.T) {
	j := newJail(t)
	app := startApp(t, j, Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: newCgroup(t)})
	app.await(t, "up")
	next := &started{adopt(t, j, app.Generation), app.output}
	if out, _ := next.mustEnter(t, "echo here").end(t); out != "here\n" {
		t.Errorf("beside an adopted app: %q", out)
	}
	app.Kill()
	app.Wait()
	next.PID = sleeper(t).Process.Pid // the next process of that number
	guest, err := next.Enter(t.Context(), Launch{Plan: next.Beside([]string{"true"}), Output: os.Stderr})
	if err == nil {
		guest.Wait()
	}
	if err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("a command beside somebody else: %v", err)
	}
}

// The vassal's limits are those of who comes beside its app, in v1 trees too.
func TestGuestsAreLimited(t *testing.T) {
	c, gen := legacyControllersOf(t), newCgroup(t)
	b, err := c.Budget("blog.1", gen, Resources{PIDs: 99}, nil)
	if err != nil {
		t.Fatal(err)
	}
	app := startApp(t, newJail(t), Launch{Plan: planOf("echo up; exec sleep 100"), Cgroup: gen, Budget: b})
	app.await(t, "up")
	out, _ := app.mustEnter(t, "cat /proc/self/cgroup").end(t)
	if want := filepath.Base(c.v1["pids"]) + "/blog.1\n"; !strings.Contains(out, want) {
		t.Errorf("it is in no cgroup %s, but in\n%s", want, out)
	}
}
