package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/internal/seccomp"
)

// kit is where make deps builds a public escape kit, amicontained, which says what
// an app in a container has.
const kit = "../../bin/amicontained"

// kitSkips are calls that the kit does not try, since they would end or stop it.
var kitSkips = []string{"rt_sigreturn", "select", "pause", "pselect6", "ppoll", "exit", "exit_group", "clone", "fork", "vfork", "seccomp"}

// kitLast is the newest call that the kit tries.
const kitLast = unix.SYS_RSEQ

// kitsOwn are calls that may fail for what the kit has done before: it has made a
// queue that nobody may read.
var kitsOwn = []string{"msgrcv"}

// A program of somebody else's, made to find ways out of containers, says of a
// confined app what we say: its capabilities, its sockets, and each system call. What
// the kernel refuses to everybody who is not root it finds in compat, too, where
// nothing is filtered.
func TestEscapeKitSaysTheSame(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		nettest.NotHere(t, "the escape kit knows the system calls of amd64 alone")
	}
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	program, err := filepath.Abs(kit)
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		nettest.Lacks(t, "%v; build it first: make deps", err)
	}
	r.Run(t, "mkdir", "-m", "755", "/var/lib/kit")
	r.Run(t, "cp", program, "/var/lib/kit/kit")
	levels := []string{"compat", "default", "strict"}
	for _, level := range levels {
		r.drop(level, "[uwsgi]\ncommand = sh -c 'timeout -s KILL 4 /var/lib/kit/kit; echo it has said all; cat /proc/uptime; exec sleep 4000'\nchdir = /var/lib/kit\nunshare = ipc\nconfine = "+level+"\n")
	}
	r.start()
	var kernels []string // what it refuses whatever the filter says
	for _, level := range levels {
		said, blocked := kitReport(r.askKit(level))
		mode := "filtering"
		if level == "compat" {
			mode, kernels = "disabled", blocked
		}
		for name, want := range map[string]string{"Seccomp": mode, "Capabilities": "", "pid": "true", "user": "false", "Looking for Docker.sock": "", "Valid Docker Socket": ""} {
			if said[name] != want {
				t.Errorf("%s: %s: %q, want %q", level, name, said[name], want)
			}
		}
		t.Logf("%s: %d system calls are blocked", level, len(blocked))
		if level != "compat" {
			compareBlocked(t, level, blocked, kernels)
		}
	}
}

// askKit returns what the kit says in a vassal. Among the calls that it tries is
// PTRACE_TRACEME, after which any signal stops it: then it is asked once more.
func (r *realm) askKit(vassal string) (out string) {
	r.t.Helper()
	seen := ""
	r.await(vassal, "has said all", func(emperor.Status) bool {
		log := r.mustRun("logs", vassal)
		if out = log[max(strings.LastIndex(log, "Container Runtime"), 0):]; strings.Contains(out, "Looking for Docker.sock") {
			return true
		}
		if end := strings.LastIndex(log, "it has said all"); end >= 0 && strings.Count(log[end:], "\n") == 2 && log[end:] != seen {
			seen = log[end:]
			r.mustRun("restart", vassal)
		}
		return false
	})
	return out
}

// compareBlocked compares the calls that the kit found blocked with our filter.
func compareBlocked(t *testing.T, level string, blocked, kernels []string) {
	t.Helper()
	ours, err := seccomp.Refused(seccomp.Wish{Strict: level == "strict", Counted: level == "strict"}) // strict counts ports
	if err != nil {
		t.Fatal(err)
	}
	if ours["mount"] == 0 || len(kernels) == 0 || len(blocked) <= len(kernels) {
		t.Fatalf("nothing to compare: %v; %v; %v", ours, kernels, blocked)
	}
	for _, name := range blocked {
		if _, refused := ours[name]; !refused && !slices.Contains(kernels, name) && !slices.Contains(kitsOwn, name) {
			t.Errorf("%s: the kit finds %s blocked, and our filter lets it through", level, name)
		}
	}
	for name, nr := range ours {
		if nr <= kitLast && !slices.Contains(kitSkips, name) && !slices.Contains(blocked, name) {
			t.Errorf("%s: our filter refuses %s, and the kit gets it done", level, name)
		}
	}
}

// kitReport is what the kit has said, by its words, and the system calls that it
// found blocked.
func kitReport(out string) (said map[string]string, blocked []string) {
	said = map[string]string{}
	list := false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ":")
		if list {
			blocked = strings.Fields(strings.ToLower(line))
		}
		list = strings.HasPrefix(line, "Blocked Syscalls")
		said[name] += strings.TrimSpace(value)
	}
	return said, blocked
}
