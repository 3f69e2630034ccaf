package vassal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// What the inis say of the vassal holds for each who joins: the emperor's
// capabilities, cgroups of v1 trees, whose options are written once, and limits.
func TestJoinedIsBound(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	group := v1Group(t, "pids")
	nettest.NoLeaks(t)
	for _, c := range []struct {
		name       string
		namespaces uintptr
		rooted     bool // of namespace: the trees are not to be seen in there
		nest       bool
	}{
		{"plain", 0, false, false},
		{"namespaces", everything &^ unix.CLONE_NEWUSER, false, false},
		{"a root of its own", everything &^ unix.CLONE_NEWUSER, true, false},
		{"pids of its own", 0, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Plan
			if c.rooted {
				p, _ = rootPlan(t)
			}
			p.UID, p.GID, p.Umask, p.LogUID = 61200, 61200, -1, -1
			p.Reaper, p.Mounts, p.Proc = c.namespaces != 0, c.namespaces != 0, c.namespaces != 0
			p.Bound, p.BoundSet = []string{"net_raw"}, true
			p.Limits = Limits{Files: 99}
			p.Isolation.Cgroups, p.Isolation.CgroupOpts = []string{group}, []string{"pids.max=23"}
			base := settle(t, j, Launch{Plan: p, Namespaces: c.namespaces})
			if err := os.WriteFile(filepath.Join(group, "pids.max"), []byte("24"), 0); err != nil {
				t.Fatal(err)
			}

			p.Args, p.Env, p.Nest, p.Reaper = []string{"/bin/sh", "-c", "ulimit -n; (grep -E 'CapBnd|Uid' /proc/self/status; cat /proc/self/cgroup)"}, nil, c.nest, false
			out, exit := base.mustJoin(t, Launch{Plan: p}).end(t)
			for _, want := range []string{"99\n", "CapBnd:\t0000000000002100\n", "Uid:\t61200\t", group[strings.Index(group, "fiefdom-"):] + "\n"} { // net_raw, and setpcap as uWSGI
				if exit.Code != 0 || !strings.Contains(out, want) {
					t.Errorf("%v; it has not %q:\n%s", exit, want, out)
				}
			}
			if b, err := os.ReadFile(filepath.Join(group, "pids.max")); string(b) != "24\n" {
				t.Errorf("the cgroup's option was written again: %q, %v", b, err)
			}
		})
	}
}

// What lies where our program should be in the jail's /proc is the jail's own:
// it never runs with our rights.
func TestNothingOfTheJailsIsRun(t *testing.T) {
	j := newJail(t)
	nettest.NoLeaks(t)
	root, socket := t.TempDir(), filepath.Join(t.TempDir(), "ns.socket")
	p := planOf("")
	p.Mounts, p.Chroot, p.Reaper, p.Isolation.Serve = true, root, true, socket
	evil := `mount -t tmpfs tmpfs . && cd ../proc && mkdir self && printf '#!/bin/sh\necho evil\n' >self/exe && chmod 755 self/exe`
	p.Hooks = []Hook{
		{Phase: PostJail, Action: "exec", Args: "mount --rbind / " + root + " && cd " + root + "/proc && " + evil},
		{Phase: PostJail, Action: "exec", Args: "cd /proc && " + evil},
	}
	base := settle(t, j, Launch{Plan: p, Namespaces: unix.CLONE_NEWNS | unix.CLONE_NEWPID})
	l := Launch{Plan: planOf("ls /proc; echo good")}
	l.Plan.Nest = true
	check := func(who string, s *started) {
		t.Helper()
		if out, exit := s.end(t); exit != (Exit{}) || out != "self\ngood\n" {
			t.Errorf("%s: %v, and it said %q; want the jail's /proc and what it was told", who, exit, out)
		}
	}
	check("a process in a pid namespace of its own", base.mustJoin(t, l))
	l.Plan.Nest, l.Plan.Reaper, l.Plan.Isolation.Setns = false, true, socket
	check("another vassal, by setns", startApp(t, &Jail{Name: "app", ns: -1}, l))
}

// A generation without an app gives its namespaces away too, and may be in
// another's: then its processes are there, and it ends with the other's.
func TestSettledSetns(t *testing.T) {
	j := newJail(t, Link{Device: "eth0"})
	nettest.NoLeaks(t)
	socket := filepath.Join(t.TempDir(), "ns.socket")
	p := planOf("")
	p.Mounts, p.Proc, p.Reaper, p.Isolation.Serve = true, true, true, socket
	p.Hooks = []Hook{{Phase: PostJail, Action: "hostname", Args: "served"}}
	server := settle(t, j, Launch{Plan: p, Namespaces: everything &^ unix.CLONE_NEWUSER})
	script := Launch{Plan: planOf("hostname; " + own)}
	theirs, _ := server.mustJoin(t, script).end(t)

	p = planOf("")
	p.Reaper, p.Isolation.Setns = true, socket
	guest := settle(t, &Jail{Name: "guest", ns: -1}, Launch{Plan: p})
	out, exit := guest.mustJoin(t, script).end(t)
	if exit != (Exit{}) || out != theirs || !strings.HasPrefix(out, "served\n") {
		t.Errorf("%v: it is in\n%s\nwant\n%s", exit, out, theirs)
	}
	if out, exit := startApp(t, &Jail{Name: "app", ns: -1}, Launch{Plan: Plan{
		Args: script.Plan.Args, UID: -1, GID: -1, Umask: -1, Reaper: true, Isolation: Isolation{Setns: socket},
	}}).end(t); exit != (Exit{}) || out != theirs {
		t.Errorf("%v: an app is in\n%s\nwant\n%s", exit, out, theirs)
	}

	lasting := guest.mustJoin(t, Launch{Plan: planOf("exec sleep 1000")})
	server.Kill()
	if exit := lasting.Wait(); exit.Signal != unix.SIGKILL {
		t.Errorf("who was in its pid namespace: %v", exit)
	}
	server.Wait() // only now: pid 1 stays until everybody of its namespace is waited for
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
	if _, err := guest.join(t, script); err == nil || !errors.Is(err, unix.ENOMEM) {
		t.Fatalf("somebody joined a pid namespace that is gone: %v", err)
	}
	if exit := guest.Wait(); exit.Err != nil {
		t.Error(exit.Err)
	}
}
