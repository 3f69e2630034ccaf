package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/capability"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// The emperor's ini limits all vassals that say nothing, and their disks too.
func TestLimitsOfTheEmperor(t *testing.T) {
	t.Parallel()
	needLimits(t)
	disk := nettest.Disk(t)
	r := newRealm(t, nativeNetwork+"limit-pids = 150\nlimit-io = "+disk+" wbps=8M\noom-score-adj = 50\n", map[string]string{
		"blog": agentIni,
		"shop": "[uwsgi]\nlimit-pids = max\nlimit-io = " + disk + " riops=200\noom-score-adj = 300\ncommand = AGENT\n",
	})
	blog, shop := r.reach("blog"), r.reach("shop")
	if blog.Limits == nil || blog.Limits.PIDs != 150 || shop.Limits == nil || shop.Limits.PIDs != 0 {
		t.Errorf("limits: %+v, %+v", blog.Limits, shop.Limits)
	}
	for _, f := range [][3]string{
		{"blog", "blkio.throttle.write_bps_device", strconv.Itoa(8 << 20)},
		{"shop", "blkio.throttle.write_bps_device", strconv.Itoa(8 << 20)},
		{"shop", "blkio.throttle.read_iops_device", "200"},
	} {
		if got := r.limitValue("blkio", f[0], f[1]); !strings.HasSuffix(got, " "+f[2]) {
			t.Errorf("%s of %s is %q, want %s", f[1], f[0], got, f[2])
		}
	}
	lock := strings.TrimSpace(r.read("/run/fiefdom/emperor/lock"))
	pid, _ := strconv.Atoi(lock)
	router, _, _ := strings.Cut(r.read("/run/fiefdom/emperor/router"), " ")
	routerPID, _ := strconv.Atoi(router)
	protected, spared := "-900", [2]string{"-1000", "-1000"}
	if !mayProtect(t) {
		protected, spared = "0", [2]string{"50", "300"}
		r.logged("not protected from a lack of memory", 1)
	}
	for who, want := range map[int]string{
		pid: protected, routerPID: protected, blog.PID: "50", shop.PID: "300", r.reaper(blog): spared[0], r.reaper(shop): spared[1],
	} {
		if got := strings.TrimSpace(r.proc(who, "oom_score_adj")); got != want {
			t.Errorf("process %d (%s) has the score %s, want %s", who, r.proc(who, "comm"), got, want)
		}
	}
	if got := strings.TrimSpace(r.mustSh(blog, "sh -c 'cat /proc/self/oom_score_adj'")); got != "50" {
		t.Errorf("a child of the app has the score %s", got)
	}
	r.stop(syscall.SIGTERM)
}

// mayProtect says whether this machine's root may lower the score of a process.
func mayProtect(t *testing.T) bool {
	t.Helper()
	had, err := capability.NewPid2(0)
	if err == nil {
		err = had.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	return had.Get(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE)
}

// An owner can have less than the emperor's ini says, not more.
func TestLimitsOfOwners(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-tyrant = true\nlimit-pids = 100\n")
	const owner = 61100
	for name, text := range map[string]string{
		"less": "limit-pids = 50\nlimit-memory = 64M\n", "none": "", "more": "limit-pids = 101\n", "all": "limit-pids = max\n", "dear": "oom-score-adj = -1\n",
	} {
		r.writeAs(iniPath(name), "[uwsgi]\n"+text+"command = AGENT\n", owner, owner)
	}
	r.start()
	for name, pids := range map[string]int{"less": 50, "none": 100} {
		if s := r.reach(name); s.Limits == nil || s.Limits.PIDs != pids {
			t.Errorf("%s has the limits %+v, want %d", name, s.Limits, pids)
		}
	}
	checked, code := r.run("check", "/run/t/emperor.ini")
	if code != exitInvalid {
		t.Errorf("check: exit code %d", code)
	}
	for name, want := range map[string]string{
		"more": "/more.ini:2: limit-pids = 101 is more than the 100", "all": "/all.ini:2: limit-pids = max is more than the 100", "dear": "/dear.ini:2: oom-score-adj = -1 is less than 0",
	} {
		if s := r.awaitState(name, emperor.Invalid); !strings.Contains(s.Error, want) {
			t.Errorf("%s: %q, want %q", name, s.Error, want)
		}
		if !strings.Contains(checked, want) {
			t.Errorf("check, without %q:\n%s", want, checked)
		}
	}
	r.stop(syscall.SIGTERM)
}

// A limit that nobody can keep is an error that says so, before anything runs.
func TestLimitWithoutAController(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-e", "-c", "umount /sys/fs/cgroup/memory; umount /sys/fs/cgroup/memory")
	r.drop("blog", "[uwsgi]\ncommand = AGENT\nlimit-memory = 64M\n")
	r.drop("shop", "[uwsgi]\ncommand = AGENT\nlimit-pids = 64\n")
	const want = "blog.ini:3: limit-memory = 64M: no memory controller: "
	if out, code := r.run("check", "/run/t/emperor.ini"); code != exitInvalid || !strings.Contains(out, want) {
		t.Errorf("check: exit code %d, without %q:\n%s", code, want, out)
	}
	if out, _ := r.run("doctor"); !strings.Contains(out, "warn  limits") || !strings.Contains(out, "limit-memory: ") {
		t.Errorf("doctor:\n%s", out)
	}
	r.start()
	if s := r.awaitState("blog", emperor.Invalid); !strings.Contains(s.Error, want) || s.PID != 0 {
		t.Errorf("it is %+v", s)
	}
	r.reach("shop")
	r.stop(syscall.SIGTERM)
}

// A limit, and a cgroup of the ini that would take the processes away from it,
// exclude each other where they are of one v1 tree.
func TestLimitAndCgroupOfTheSameTree(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.drop("blog", "[uwsgi]\ncommand = AGENT\nlimit-pids = 64\ncgroup = /sys/fs/cgroup/pids/mine\n")
	r.drop("shop", "[uwsgi]\ncommand = AGENT\nlimit-memory = 64M\ncgroup = /sys/fs/cgroup/pids/mine\n")
	r.start()
	const want = "blog.ini:4: cgroup /sys/fs/cgroup/pids/mine is in the v1 tree of pids"
	if s := r.awaitState("blog", emperor.Invalid); !strings.Contains(s.Error, want) {
		t.Errorf("it is %+v, want %q", s, want)
	}
	r.reach("shop")
	r.mustRun("stop", "shop")
	r.Run(t, "rmdir", "/sys/fs/cgroup/pids/mine")
	r.stop(syscall.SIGTERM)
}

// The smallest limits that an ini may have are enough for every kind of start.
func TestSmallestLimitsAreEnoughToStart(t *testing.T) {
	t.Parallel()
	needLimits(t)
	const least = "[uwsgi]\nlimit-pids = 32\nlimit-memory = 16M\nlimit-cpu = 0.1\n"
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-use-clone = pid,fs,ipc,uts\n")
	r.program = builtProgram(t)
	r.drop("plain", least+"command = sleep 1000\nexec-as-root = true\n")
	r.drop("crew", least+"command = sleep 1000\nattach-daemon = sleep 1000\nattach-daemon2 = cmd=sleep 1000,ns_pid=true\n")
	r.start()
	r.awaitState("plain", emperor.Running)
	r.await("crew", "has all its processes", func(s emperor.Status) bool {
		running := 0
		for _, p := range s.Processes {
			if p.State == emperor.Running {
				running++
			}
		}
		return s.State == emperor.Running && running == 2
	})
	for _, name := range []string{"plain", "crew"} {
		if s := r.ps(name); s.OOMKills != 0 || s.Restarts != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	r.stop(syscall.SIGTERM)
}

// builtProgram is fiefdom as users have it. What the tests' binary has beside it
// takes more memory than all the rest.
func builtProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fiefdom")
	if out, err := nettest.GoTool(t.Context(), "build", "-ldflags=-s -w", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// A real uwsgi gets new limits without a reload, and new options with one.
func TestUwsgiIsLimitedWhileItServes(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.writeApps()
	r.drop("app", oneWorker)
	r.start()
	first := r.awaitPage("app", "load 1")
	r.drop("app", oneWorker+"limit-pids = 90\n")
	limited := func(pids int) {
		t.Helper()
		s := r.await("app", "has its limit", func(s emperor.Status) bool { return s.Limits != nil && s.Limits.PIDs == pids })
		if s.PID != first.PID || s.Restarts != 0 {
			t.Errorf("pid %d, %d restarts; was %d", s.PID, s.Restarts, first.PID)
		}
	}
	limited(90)
	if log, err := os.ReadFile(r.log); err != nil || strings.Contains(string(log), "told to reload") {
		t.Errorf("it was told to reload for the sake of a limit (%v):\n%s", err, log)
	}
	r.drop("app", strings.ReplaceAll(oneWorker, "/run/t/app.pl", "/run/t/a%%d$(b).pl")+"limit-pids = 91\n")
	limited(91)
	if s := r.awaitPage("app", "load 2"); s.PID != first.PID {
		t.Errorf("pid %d; was %d", s.PID, first.PID)
	}
	r.pidsMax(first, 91)
	r.stop(syscall.SIGTERM)
}

// Neighbours under one uid: with a pid namespace each, neither sees a process of
// the other, and so can do nothing to it. // T25
func TestNeighboursOfOneUID(t *testing.T) {
	t.Parallel()
	const same = "[uwsgi]\nuid = 61150\ngid = 61150\ncommand = AGENT\n"
	r := newRealm(t, nativeNetwork+"emperor-use-clone = pid,fs\n", map[string]string{"blog": same, "shop": same})
	blog, shop := r.reach("blog"), r.reach("shop")
	out := r.mustSh(blog, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done")
	if got := strings.Count(out, agentPath(t)); got != 1 {
		t.Errorf("blog sees %d agents, want its own alone:\n%s", got, out)
	}
	for _, command := range []string{"kill -0 %d", "kill -KILL %d", "ls /proc/%d/", "cat /proc/%d/environ"} {
		command = strings.ReplaceAll(command, "%d", strconv.Itoa(shop.PID))
		if out, err := r.sh(blog, command); err == nil {
			t.Errorf("from blog: %s: %s", command, out)
		}
	}
	if now := r.ps("shop"); now.PID != shop.PID || !r.answers(now.Addresses[0]) {
		t.Errorf("shop is %+v", now)
	}
	r.stop(syscall.SIGTERM)
}

// Without a v2 tree the limits are the same, and a vassal's end is the end of
// all that is under them. One that begins takes a new process.
func TestLimitsWithoutAV2Tree(t *testing.T) {
	t.Parallel()
	needLimits(t)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.Run(t, "sh", "-c", "while umount -l $(findmnt -nro TARGET -t cgroup2 | tail -n 1); do :; done 2>/dev/null; test -z \"$(findmnt -nro TARGET -t cgroup2)\"")
	r.drop("blog", agentIni)
	r.drop("bomb", "[uwsgi]\nlimit-pids = 64\nreload-mercy = 1\ncommand = perl -e \"$SIG{TERM} = 'IGNORE'; setpgrp; while (1) { fork or select(undef, undef, undef, 0.01) }\"\n")
	r.start()
	s := r.reach("blog")
	r.await("bomb", "is at its limit", func(s emperor.Status) bool { return s.PIDs >= 60 && s.PIDs <= 64 })
	dir := r.limited("pids", "bomb")
	r.mustRun("stop", "bomb")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its cgroup is still there: %v", err)
	}
	if out := r.Run(t, "ps", "-eo", "args"); strings.Contains(out, "fork or select") {
		t.Errorf("some of the bomb lives:\n%s", out)
	}
	r.drop("blog", "[uwsgi]\nlimit-pids = 99\ncommand = AGENT\n")
	now := r.await("blog", "has its limit", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.Limits != nil && s.Limits.PIDs == 99
	})
	if now.PID == s.PID {
		t.Error("a limit began over processes that nobody knew all")
	}
	r.drop("blog", "[uwsgi]\nlimit-pids = 98\ncommand = AGENT\n")
	last := r.await("blog", "has its new limit", func(s emperor.Status) bool { return s.Limits != nil && s.Limits.PIDs == 98 })
	if last.PID != now.PID {
		t.Errorf("pid %d, was %d", last.PID, now.PID)
	}
	r.pidsMax(last, 98)
	r.stop(syscall.SIGTERM)
}
