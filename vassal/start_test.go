package vassal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
	"fiefdom/internal/nettest"
)

const whoAmI = `cat /proc/self/status; echo "fds: $(ls /proc/self/fd | tr '\n' ' ')"; pwd; umask`

func TestStartConfines(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	zero, full := "0000000000000000", func() string {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		return status(string(b), "CapBnd")
	}()
	for name, tc := range map[string]struct {
		change func(*Plan)
		want   map[string]string
	}{
		"root, free": {func(*Plan) {}, map[string]string{"Uid": "0 0 0 0", "CapEff": full, "NoNewPrivs": "0", "SigBlk": zero, "SigIgn": zero}},
		"uid of its own": {
			func(p *Plan) { p.UID, p.GID, p.SetGroups, p.Bounded = 61200, 61201, true, true },
			map[string]string{"Uid": "61200 61200 61200 61200", "Gid": "61201 61201 61201 61201", "Groups": "", "CapEff": zero, "CapPrm": zero, "CapInh": zero, "CapBnd": zero, "CapAmb": zero, "NoNewPrivs": "1"},
		},
		"groups": {
			func(p *Plan) { p.UID, p.GID, p.SetGroups, p.Groups = 61200, 61201, true, []int{7, 9} },
			map[string]string{"Groups": "7 9", "NoNewPrivs": "0", "CapEff": zero},
		},
		"one capability": {func(p *Plan) {
			p.UID, p.GID, p.SetGroups, p.Bounded, p.KeepCaps, p.Caps = 61200, 61201, true, true, true, []string{"net_bind_service"}
		}, map[string]string{"CapEff": "0000000000000400", "CapPrm": "0000000000000400", "CapBnd": "0000000000000400", "CapAmb": "0000000000000400", "NoNewPrivs": "1"}},
		"root, bounded":          {func(p *Plan) { p.Bounded = true }, map[string]string{"Uid": "0 0 0 0", "CapEff": zero, "CapPrm": zero, "CapBnd": zero, "NoNewPrivs": "1"}},
		"root, one capability":   {func(p *Plan) { p.KeepCaps, p.Caps = true, []string{"net_raw"} }, map[string]string{"CapEff": "0000000000002000", "CapBnd": "0000000000002000"}},
		"root, empty cap option": {func(p *Plan) { p.KeepCaps = true }, map[string]string{"CapEff": zero, "CapBnd": zero}},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(whoAmI)
			tc.change(&p)
			out, exit := startApp(t, j, Launch{Plan: p}).end(t)
			if exit.Code != 0 || exit.Signal != 0 {
				t.Fatalf("%v: %s", exit, out)
			}
			for field, want := range tc.want {
				if got := status(out, field); got != want {
					t.Errorf("%s is %q, want %q", field, got, want)
				}
			}
			if !strings.Contains(out, "fds: 0 1 2 3 ") || strings.Contains(out, "fds: 0 1 2 3 4") { // 3 is ls's own
				t.Errorf("descriptors: %s", out)
			}
			if !strings.Contains(out, "\n/\n") {
				t.Errorf("not in /: %s", out)
			}
		})
	}
}

func TestStartSettings(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	t.Setenv("FIEFDOM_TEST_SECRET", "secret")
	p := planOf(`env | sort; pwd; umask; readlink /proc/self/ns/net; cat /proc/self/stat | cut -d' ' -f1,6; read x; echo "stdin: $?"`)
	p.CleanEnv, p.Env = true, []string{"PATH=/usr/bin:/bin", "B=x=y", "B=z"}
	p.Chdir, p.Umask = "/usr", 0o27
	out, _ := startApp(t, j, Launch{Plan: p}).end(t)
	for _, want := range []string{"B=z\n", "PATH=/usr/bin:/bin\n", "\n/usr\n", "\n0027\n", fmt.Sprintf("net:[%d]", j.Inode), "stdin: 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "secret") {
		t.Errorf("the emperor's environment: %s", out)
	}
}

func TestStartOrderOfHooksAndChroot(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	root := t.TempDir()
	p := planOf(`echo "app $(id -u) $(ls /mnt/inside) $MADE"`)
	p.Mounts, p.Chroot, p.UID, p.GID = true, root, 61200, 61200
	p.Hooks = []Hook{
		{Phase: AsUser, Action: "exec", Args: `echo "user $(id -u)"`},
		{Phase: AsRoot, Action: "exec", Args: `echo "root $(id -u)"`},
		{Phase: AsRoot, Action: "putenv", Args: "MADE=by-hook"},
		{Phase: AsRoot, Action: "mkdir", Args: "/mnt/inside"},
		{Phase: AsRoot, Action: "mount", Args: "tmpfs none /mnt/inside"},
		{Phase: AsRoot, Action: "mkdir", Args: "/mnt/inside/here"},
		{Phase: PostJail, Action: "print", Args: "jail"},
		{Phase: PostJail, Action: "mount", Args: "none / " + root + " bind"},
		{Phase: PostJail, Action: "mount", Args: "none /proc " + root + "/proc bind,rec"},
		{Phase: PostJail, Action: "mount", Args: "none /dev " + root + "/dev bind,rec"},
		{Phase: PostJail, Action: "mount", Args: "tmpfs none " + root + "/mnt"},
	}
	before := mounts(t)
	out, exit := startApp(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWNS}).end(t)
	if want := "jail\nroot 0\nuser 61200\napp 61200 here by-hook\n"; out != want || exit.Code != 0 {
		t.Errorf("got %q, %v, want %q", out, exit, want)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts of the machine changed:\n%s", nettest.Diff(before, after))
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStartPrivateFiles(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 10.9.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := planOf(`cat /etc/resolv.conf; cd /proc && set -- [0-9]* && echo $#; hostname jail && hostname`)
	p.Mounts, p.Proc, p.Reaper, p.Resolv = true, true, true, resolv
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := startApp(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS}).end(t)
	if want := "nameserver 10.9.0.1\n2\njail\n"; out != want { // the reaper and the shell, which looks by itself
		t.Errorf("got %q, want %q", out, want)
	}
	if now, err := os.Hostname(); err != nil || now != own {
		t.Errorf("the machine is %q now, %v", now, err)
	}
}

func TestExits(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	for name, tc := range map[string]struct {
		script string
		want   Exit
		says   string
	}{
		"fine":            {"exit 0", Exit{}, "exit code 0"},
		"code":            {"exit 3", Exit{Code: 3}, "exit code 3"},
		"signal":          {"kill -SEGV $$", Exit{Signal: syscall.SIGSEGV}, "killed by SIGSEGV"},
		"killed":          {"kill -KILL $$", Exit{Signal: syscall.SIGKILL}, "killed by SIGKILL"},
		"children first":  {"for i in 1 2 3 4 5; do (exit 9) & done; wait; exit 4", Exit{Code: 4}, "exit code 4"},
		"orphans, daemon": {"setsid sleep 1000 & (sleep 0 & exit 6); exit 5", Exit{Code: 5}, "exit code 5"},
	} {
		for _, reaper := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reaper %v", name, reaper), func(t *testing.T) {
				p := planOf("exec >/dev/null 2>&1; " + tc.script)
				l := Launch{Plan: p}
				if l.Plan.Reaper = reaper; reaper {
					l.Namespaces = unix.CLONE_NEWPID
				}
				s := startApp(t, j, l)
				exit := s.Wait()
				if exit != tc.want || exit.String() != tc.says {
					t.Errorf("got %+v (%s), want %+v", exit, exit, tc.want)
				}
				if again := s.Wait(); again != exit {
					t.Errorf("asked again: %+v", again)
				}
				if left := processesIn(t, j.Inode); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

func TestReaper(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	p := planOf(`trap 'echo got TERM; exit 0' TERM
(sh -c 'sleep 0.01 & echo orphan $!' ) 
while [ $(ls /proc | grep -c '^[0-9]') -gt 4 ]; do :; done
cat /proc/1/status; echo "pid $$ ppid $PPID"; kill -KILL 1; echo lives
while :; do sleep 0.05; done`)
	p.Mounts, p.Proc, p.Reaper, p.UID, p.GID = true, true, true, 61200, 61200
	s := startApp(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWPID | unix.CLONE_NEWNS})
	var text strings.Builder
	for {
		line := s.line(t)
		text.WriteString(line + "\n")
		if line == "lives" {
			break
		}
	}
	out := text.String()
	for field, want := range map[string]string{"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Pid": "1"} {
		if got := status(out, field); got != want {
			t.Errorf("the reaper's %s is %q, want %q", field, got, want)
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil || status(string(b), "Uid") != "61200 61200 61200 61200" {
		t.Errorf("pid %d is not the app: %v", s.PID, err)
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, exit := s.end(t)
	if !strings.Contains(rest, "got TERM") || exit.Code != 0 || exit.Signal != 0 {
		t.Errorf("%q, %v", rest, exit)
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal to an app that is gone: %v", err)
	}
}

func TestKillEndsStubbornChildren(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	c := newCgroup(t)
	for _, with := range []string{"cgroup", "pid namespace", "network namespace"} {
		t.Run(with, func(t *testing.T) {
			l := Launch{Plan: planOf(`trap '' TERM INT HUP; (trap '' TERM; setsid sh -c 'sleep 1000 & sleep 1000' & ); echo up; while :; do sleep 1000; done`)}
			switch with {
			case "cgroup":
				var err error
				if l.Cgroup, err = c.Make("stubborn"); err != nil {
					t.Fatal(err)
				}
			case "pid namespace":
				l.Plan.Reaper, l.Namespaces = true, unix.CLONE_NEWPID
			}
			s := startApp(t, j, l)
			s.line(t)
			if err := s.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			s.Kill()
			if exit := s.Wait(); exit.Signal != syscall.SIGKILL || exit.Err != nil {
				t.Errorf("%+v", exit)
			}
			if left := processesIn(t, j.Inode); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestLogTo(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	path := filepath.Join(t.TempDir(), "log")
	p := planOf("echo hi")
	p.LogTo = path
	p.Hooks = []Hook{{Phase: PostJail, Action: "print", Args: "hook"}}
	var log *logfile.File
	s := startApp(t, j, Launch{Plan: p, Log: func(f *logfile.File) { log = f }})
	if log == nil {
		t.Fatal("no log came up")
	}
	defer log.Close()
	for range 2 {
		if _, err := io.WriteString(log, "line\n"); err != nil {
			t.Fatal(err)
		}
	}
	if out, _ := s.end(t); out != "hook\nhi\n" {
		t.Errorf("the app's output is the emperor's to write: %q", out)
	}
	st, err := os.Stat(path)
	if err != nil || st.Size() != 10 || st.Mode().Perm()&0o027 != 0 {
		t.Errorf("%v, %v", st, err)
	}
}

// Under tyrant the log is the owner's: made by him, where he may.
func TestLogToOfAnOwner(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	dir, err := os.MkdirTemp("", "fiefdom-log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chown(dir, 61200, 61201), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	p := planOf("id -u; id -G")
	p.LogTo, p.LogUID, p.UID, p.GID = filepath.Join(dir, "log"), 61200, 61200, 61201
	out, exit := startApp(t, j, Launch{Plan: p}).end(t)
	if out != "61200\n61201\n" || exit.Code != 0 {
		t.Errorf("%q, %v", out, exit)
	}
	var st unix.Stat_t
	if err := unix.Stat(p.LogTo, &st); err != nil || st.Uid != 61200 || st.Gid != 61201 {
		t.Errorf("%d:%d, %v", st.Uid, st.Gid, err)
	}
}
