package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

// needLimits skips where the controllers are in the v2 tree: worlds have them
// for themselves in v1 trees only.
func needLimits(t *testing.T) {
	t.Helper()
	nettest.LegacyLimits(t)
	c, err := vassal.MachineControllers()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{vassal.LimitCPU, vassal.LimitMemory, vassal.LimitPIDs, vassal.LimitIO} {
		if where, _ := c.Where(option); where != "v1" {
			t.Fatalf("the controller of %s is not found in its v1 tree, but: %s", option, where)
		}
	}
}

// limited is the folder of a vassal's generation in the v1 tree of a controller.
func (r *realm) limited(controller, vassal string) string {
	r.t.Helper()
	root := r.Legacy(controller)
	dirs, err := filepath.Glob(filepath.Join(root, "fiefdom-*", vassal+".*"))
	if err != nil || len(dirs) != 1 {
		r.t.Fatalf("folders of %s in %s: %q, %v", vassal, root, dirs, err)
	}
	return dirs[0]
}

// limitValue reads a file of such a folder.
func (r *realm) limitValue(controller, vassal, file string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.limited(controller, vassal), file))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// startBuilt starts an emperor with the program that users have: that of the
// tests needs more memory than small limits leave it.
func startBuilt(t *testing.T, inis map[string]string) *realm {
	t.Helper()
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	for name, text := range inis {
		r.drop(name, text)
	}
	r.program = builtProgram(t)
	r.start()
	return r
}

// reaper is the pid of the first process of a vassal's pid namespace.
func (r *realm) reaper(s emperor.Status) int {
	r.t.Helper()
	pid, err := strconv.Atoi(statusOf(r.proc(s.PID, "status"))["PPid"])
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

// pidsMax checks that the kernel's limit is that of the ini, and what the reaper
// has beside it.
func (r *realm) pidsMax(s emperor.Status, limit int) {
	r.t.Helper()
	if !r.pidsAre(s, limit) {
		r.t.Errorf("pids.max is %s, want %d and the threads of the reaper", r.limitValue("pids", s.Name, "pids.max"), limit)
	}
}

// pidsAre says whether that is so. A thread may come to the reaper later.
func (r *realm) pidsAre(s emperor.Status, limit int) bool {
	r.t.Helper()
	tasks, _ := strconv.Atoi(statusOf(r.proc(r.reaper(s), "status"))["Threads"])
	got, _ := strconv.Atoi(r.limitValue("pids", s.Name, "pids.max"))
	return tasks > 0 && (got == limit+tasks || got == limit+tasks-1)
}

// A vassal that does nothing but fork: its neighbour answers all the while, and
// what it made is gone soon after it was told to stop. // T20
func TestForkBombIsBounded(t *testing.T) {
	t.Parallel()
	needLimits(t)
	const most = 64
	r := newRealm(t, nativeNetwork, map[string]string{
		"bomb": fmt.Sprintf("[uwsgi]\nlimit-pids = %d\nreload-mercy = 1\ncommand = perl -e \"$SIG{TERM} = 'IGNORE'; while (1) { fork or select(undef, undef, undef, 0.01) }\"\n", most),
		"blog": agentIni,
	})
	s := r.reach("blog")
	full := r.await("bomb", "is at its limit", func(s emperor.Status) bool { return s.PIDs >= most-8 })
	if full.PIDs > most || full.Limits == nil || full.Limits.PIDs != most {
		t.Errorf("it has %d processes, with limits %+v; want at most %d", full.PIDs, full.Limits, most)
	}
	dir := r.limited("pids", "bomb")
	for range scaled(20, 1000) {
		if !r.answers(s.Addresses[0]) {
			t.Fatal("the neighbour does not answer beside a fork bomb")
		}
		if now := r.ps("bomb").PIDs; now > most {
			t.Fatalf("the bomb has %d processes", now)
		}
	}
	began := time.Now()
	r.mustRun("stop", "bomb")
	took := time.Since(began)
	t.Logf("all of it was gone %v after the stop began, with a mercy of 1 s", took)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its cgroup is still there: %v", err)
	}
	if out := r.Run(t, "ps", "-eo", "args"); strings.Contains(out, "fork or select") {
		t.Errorf("some of the bomb lives:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}

// A vassal that takes all the memory it gets loses processes, and nobody else
// does; the log and the status say so. // T21
func TestMemoryBombIsItsOwn(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := startBuilt(t, map[string]string{
		"bomb": "[uwsgi]\nlimit-memory = 48M\ncommand = /bin/sh -c \"sleep 1; exec tail /dev/zero\"\n",
		"part": "[uwsgi]\nlimit-memory = 192M\ncommand = AGENT\n",
		"blog": agentIni,
	})
	blog, part := r.reach("blog"), r.reach("part")
	const reason = "killed: out of memory (limit-memory = 48M)"
	s := r.await("bomb", "was killed for its memory", func(s emperor.Status) bool { return s.Error == reason && s.OOMKills > 0 })
	if log, _ := os.ReadFile(r.log); !strings.Contains(string(log), `msg="out of memory" vassal=bomb limit="limit-memory = 48M"`) {
		t.Error("the log has no line about it")
	}
	r.mustRun("stop", "bomb")
	if out := r.mustRun("status", "part"); !strings.Contains(out, "of 192M") {
		t.Errorf("status does not show the limit:\n%s", out)
	}

	// A child of the app alone: the app goes on, and the kill is told at once.
	if _, err := r.sh(part, "tail /dev/zero"); err == nil {
		t.Error("the child got all the memory that it wanted")
	}
	began := time.Now()
	s = r.await("part", "tells of the kill", func(s emperor.Status) bool { return s.OOMKills > 0 })
	t.Logf("the kill was told %v after the child's end", time.Since(began))
	if s.PID != part.PID || s.State != emperor.Running || !r.answers(s.Addresses[0]) {
		t.Errorf("the app did not survive its child: %+v", s)
	}
	if now := r.ps("blog"); now.PID != blog.PID || now.OOMKills != 0 || !r.answers(now.Addresses[0]) {
		t.Errorf("the neighbour suffered: %+v", now)
	}
	if err := r.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the emperor: %v", err)
	}
	r.stop(syscall.SIGTERM)
}

// New limits are put in force for what runs; everything else is a new start.
func TestLimitsChangeWithoutARestart(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	s := r.reach("blog")
	change := func(text string, want func(*emperor.LimitStatus) bool) {
		t.Helper()
		r.drop("blog", "[uwsgi]\n"+text+"command = AGENT\n")
		now := r.await("blog", "has its new limits", func(s emperor.Status) bool { return want(s.Limits) })
		if now.PID != s.PID || now.Restarts != 0 {
			t.Errorf("%q: pid %d and %d restarts, was %d and none", text, now.PID, now.Restarts, s.PID)
		}
	}
	change("limit-pids = 100\n", func(l *emperor.LimitStatus) bool { return l != nil && l.PIDs == 100 })
	r.pidsMax(s, 100)
	if procs := strings.Fields(r.limitValue("pids", "blog", "cgroup.procs")); len(procs) == 0 {
		t.Error("who ran was not moved under its limit")
	}
	change("limit-pids = 200\nlimit-cpu = 1.5\nlimit-memory = 256M\n", func(l *emperor.LimitStatus) bool {
		return l != nil && l.PIDs == 200 && l.CPUs == 1.5 && l.MemoryBytes == 256<<20
	})
	for _, f := range [][3]string{
		{"cpu", "cpu.cfs_quota_us", "150000"},
		{"memory", "memory.limit_in_bytes", strconv.Itoa(256 << 20)},
		{"memory", "memory.memsw.limit_in_bytes", strconv.Itoa(256 << 20)},
	} {
		if got := r.limitValue(f[0], "blog", f[1]); got != f[2] {
			t.Errorf("%s is %s, want %s", f[1], got, f[2])
		}
	}
	r.pidsMax(s, 200)
	// The kernel now enforces what was put over a running app.
	if out, err := r.sh(s, "tail /dev/zero"); err == nil {
		t.Errorf("the child of the running app got all the memory that it wanted: %s", out)
	}
	r.await("blog", "tells of the kill", func(s emperor.Status) bool { return s.OOMKills > 0 })
	change("", func(l *emperor.LimitStatus) bool { return l == nil })
	if got := r.limitValue("pids", "blog", "pids.max"); got != "max" {
		t.Errorf("without a limit pids.max is %s", got)
	}
	// A new limit and a new environment are a new process, with both.
	r.drop("blog", "[uwsgi]\nlimit-pids = 77\nenv = A=1\ncommand = AGENT\n")
	now := r.await("blog", "is a new process", func(n emperor.Status) bool {
		return n.State == emperor.Running && n.PID != s.PID && n.Limits != nil && n.Limits.PIDs == 77
	})
	if r.pidsMax(now, 77); now.Error != "" {
		t.Errorf("%+v", now)
	}
	r.stop(syscall.SIGTERM)
}

// A loop that never rests gets what its limit says, by the kernel's own count.
func TestCPULimit(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := newRealm(t, nativeNetwork, map[string]string{"loop": "[uwsgi]\nlimit-cpu = 0.1\ncommand = /bin/sh -c \"while :; do :; done\"\n"})
	r.await("loop", "waited for its share", func(s emperor.Status) bool { return s.ThrottledSeconds > 0.2 && s.CPUSeconds > 0 })
	first, began := r.ps("loop"), time.Now()
	r.await("loop", "has used some more", func(s emperor.Status) bool { return s.CPUSeconds > first.CPUSeconds+0.2 })
	last, took := r.ps("loop"), time.Since(began).Seconds()
	if used := last.CPUSeconds - first.CPUSeconds; used > took*0.1+0.05 {
		t.Errorf("it used %.3f s of CPU in %.3f s, want a tenth at most", used, took)
	}
	if out := r.mustRun("status", "loop"); !strings.Contains(out, "limit 0.1 CPUs") {
		t.Errorf("status does not show the limit:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}

// What a killed emperor had in v1 trees goes with the next one's beginning.
func TestLimitsAfterAKilledEmperor(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := newRealm(t, nativeNetwork, map[string]string{
		"blog": "[uwsgi]\nlimit-pids = 100\nlimit-memory = 128M\nlimit-cpu = 100%%\ncommand = AGENT\n",
		"gone": "[uwsgi]\nlimit-pids = 100\ncommand = /bin/sh -c \"trap '' TERM; while :; do setsid sleep 1000; done\"\n",
	})
	r.reach("blog")
	r.awaitState("gone", emperor.Running)
	left := r.limited("pids", "gone")
	r.die()
	if _, err := os.Stat(left); err != nil {
		t.Errorf("the limits went with the emperor: %v", err)
	}
	if err := os.Remove(r.Path(iniPath("gone"))); err != nil {
		t.Fatal(err)
	}
	r.start()
	if s := r.reach("blog"); s.Limits == nil || s.Limits.PIDs != 100 {
		t.Errorf("under the next emperor: %+v", s.Limits)
	}
	nettest.Eventually(t, patience, "the folder of the vassal that is gone is gone", func() bool {
		_, err := os.Stat(left)
		return errors.Is(err, fs.ErrNotExist)
	})
	r.stop(syscall.SIGTERM)
}

// Processes that join a generation are under its limits, and it is one limit
// for all of them.
func TestLimitsOfAttachedProcesses(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := startBuilt(t, map[string]string{
		"crew": "[uwsgi]\nlimit-pids = 150\nlimit-memory = 192M\ncommand = AGENT\nattach-daemon = sleep 1000\nattach-daemon = sleep 1 && exec tail /dev/zero\n",
	})
	s := r.reach("crew")
	procs := func() int { return len(strings.Fields(r.limitValue("pids", "crew", "cgroup.procs"))) }
	nettest.Eventually(t, patience, "three processes are under the limit", func() bool { return procs() >= 3 })
	now := r.await("crew", "has lost the greedy one", func(s emperor.Status) bool {
		for _, p := range s.Processes {
			if strings.Contains(p.Error, "killed: out of memory (limit-memory = 192M)") {
				return true
			}
		}
		return false
	})
	if now.PID != s.PID {
		t.Errorf("the command has pid %d, had %d", now.PID, s.PID)
	}
	r.stop(syscall.SIGTERM)
}

// ps --json and status --json tell what is used, with and without limits.
func TestUsageIsShown(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"free": agentIni, "bound": "[uwsgi]\nlimit-memory = 128M\nlimit-pids = 100\ncommand = AGENT\n"})
	r.reach("free")
	r.reach("bound")
	var all []emperor.Status
	if err := json.Unmarshal([]byte(r.mustRun("ps", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d vassals", len(all))
	}
	for _, s := range all {
		if s.MemoryBytes < 1<<20 || s.MemoryBytes > 128<<20 || s.PIDs < 1 || s.PIDs > 100 || s.CPUSeconds <= 0 {
			t.Errorf("%s uses %d bytes, %d processes, %v s", s.Name, s.MemoryBytes, s.PIDs, s.CPUSeconds)
		}
	}
	r.mustRun("stop", "free")
	if s := r.ps("free"); s.MemoryBytes != 0 || s.PIDs != 0 {
		t.Errorf("stopped, and uses %+v", s)
	}
	r.stop(syscall.SIGTERM)
}
