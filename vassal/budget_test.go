package vassal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"

	"fiefdom/internal/nettest"
)

// legacyControllers are those of this machine's v1 trees, for cgroups of this
// test's own.
func legacyControllersOf(t testing.TB) *Controllers {
	t.Helper()
	nettest.Root(t)
	nettest.LegacyLimits(t)
	c, err := FindControllers("", fmt.Sprintf("fiefdom-test-%d", os.Getpid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.v1) < len(controllerOf) {
		t.Fatalf("not every controller is found in its v1 tree: %v", c.why)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// In v1 trees a process is under its limits from the moment it enters, and what
// is left is ended with them.
func TestBudgetInV1(t *testing.T) {
	// The library keeps a descriptor of the trees' root from its first use on.
	_, _ = cgroups.ReadFile("/sys/fs/cgroup/pids", "cgroup.procs")
	nettest.NoLeaks(t)
	c := legacyControllersOf(t)
	want := Resources{CPU: 500, Memory: 64 << 20, PIDs: 64}
	b, err := c.Budget("blog.1", "", want, nil)
	if err != nil {
		t.Fatal(err)
	}
	child := sleeper(t)
	if err := b.Enter(child.Process.Pid); err != nil {
		t.Fatal(err)
	}
	for controller, files := range map[string]map[string]string{
		"cpu": {"cpu.cfs_quota_us": "50000"}, "memory": {"memory.limit_in_bytes": strconv.Itoa(64 << 20)}, "pids": {"pids.max": "64", "pids.current": "1"},
	} {
		dir := Cgroup(filepath.Join(c.v1[controller], "blog.1"))
		has(t, dir, "cgroup.procs", strconv.Itoa(child.Process.Pid))
		for file, value := range files {
			has(t, dir, file, value)
		}
	}
	if _, err := os.Stat(filepath.Join(c.v1["io"], "blog.1")); err == nil {
		t.Error("a folder was made for a limit that nobody wants")
	}
	// Nobody knows who else runs, so a limit can change, but not begin.
	for name, r := range map[string]Resources{"of another kind": {CPU: 500, Memory: 64 << 20, PIDs: 64, IO: []IOLimit{{Device: "8:0", ReadBytes: 1}}}} {
		if b.changeable(&r) {
			t.Errorf("a limit %s could be put over processes that nobody knows", name)
		}
	}
	if less := (Resources{PIDs: 40}); !b.changeable(&less) || b.Set(less) != nil {
		t.Error("a limit that is there cannot be changed")
	}
	has(t, Cgroup(filepath.Join(c.v1["memory"], "blog.1")), "memory.limit_in_bytes", strconv.FormatUint(uint64(1<<63-1)/uint64(os.Getpagesize())*uint64(os.Getpagesize()), 10))

	// Another emperor takes over what it finds.
	next, err := c.ResumeBudget("blog.1", "", Resources{PIDs: 40}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.oom.close(); err != nil {
		t.Error(err)
	}
	b.oom = nil
	if got := next.InForce(); got.PIDs != 40 || next.Set(Resources{PIDs: 41}) != nil {
		t.Errorf("what was taken over has %+v", got)
	}
	if err := next.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := next.Set(Resources{PIDs: 42}); err == nil { // it may come late, beside the end
		t.Error("a limit was put in force for a generation that has ended")
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended with %v, want a kill", err)
	}
	for _, dir := range c.v1 {
		if _, err := os.Stat(filepath.Join(dir, "blog.1")); err == nil {
			t.Errorf("%s/blog.1 is still there", dir)
		}
	}
}

// A limit that the kernel does not take leaves nothing behind.
func TestBudgetThatCannotBe(t *testing.T) {
	c := legacyControllersOf(t)
	if _, err := c.Budget("blog.1", "", Resources{PIDs: 64, IO: []IOLimit{{Device: "4000:4000", Name: "/dev/gone", ReadBytes: 1}}}, nil); err == nil || !strings.Contains(err.Error(), "limit-io = /dev/gone rbps=1: ") {
		t.Errorf("a disk that is not there: %v", err)
	}
	for controller, dir := range c.v1 {
		if _, err := os.Stat(filepath.Join(dir, "blog.1")); err == nil {
			t.Errorf("its folder in the tree of %s is left", controller)
		}
	}
}

// A limit that begins while processes run, and are born, is over all of them.
func TestBudgetOverWhoRuns(t *testing.T) {
	c := legacyControllersOf(t)
	gen := newCgroup(t)
	b, err := c.Budget("blog.1", gen, Resources{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	deep, err := gen.Make("deep")
	if err != nil {
		t.Fatal(err)
	}
	bomb := exec.Command("sh", "-c", `echo $$ >"$1"/cgroup.procs; while :; do sleep 0.01; done`, "sh", string(deep))
	if err := bomb.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bomb.Process.Kill(); _ = bomb.Wait() })
	nettest.Eventually(t, 20*time.Second, "it runs", func() bool { return len(gen.everybody()) > 1 })
	if err := b.Set(Resources{PIDs: 99}); err != nil {
		t.Fatal(err)
	}
	dir := Cgroup(filepath.Join(c.v1["pids"], "blog.1"))
	has(t, dir, "pids.max", "99")
	in := dir.words("cgroup.procs")
	if len(in) == 0 || in[0] != strconv.Itoa(bomb.Process.Pid) {
		t.Errorf("under the limit are %q, want %d and its children", in, bomb.Process.Pid)
	}
	if err := gen.Kill(); err != nil {
		t.Error(err)
	}
	if err := b.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a change of limits has written before it failed is lifted by the next one.
func TestHalfABudgetIsLifted(t *testing.T) {
	c := legacyControllersOf(t)
	b, err := c.Budget("half.1", "", Resources{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Set(Resources{CPU: 500, IO: []IOLimit{{Device: "4000:4000", ReadBytes: 1}}}); err == nil {
		t.Fatal("a device that is not there is limited")
	}
	cpu := Cgroup(filepath.Join(c.v1["cpu"], "half.1"))
	has(t, cpu, "cpu.cfs_quota_us", "50000")
	if err := b.Set(Resources{}); err != nil {
		t.Error(err)
	}
	has(t, cpu, "cpu.cfs_quota_us", "-1")
	if err := b.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// The watch for out of memory of a generation that outlives its controllers ends
// in peace.
func TestWatchOutlivesItsWatcher(t *testing.T) {
	dir := Cgroup(t.TempDir())
	fake(t, dir, "memory.events", "oom_kill 0\n")
	var w oomWatch
	o, err := w.add(&Budget{cgroup: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
}
