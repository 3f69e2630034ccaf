package vassal

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// inCgroup starts a command in a cgroup.
func inCgroup(t testing.TB, c Cgroup, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestUsage(t *testing.T) {
	gen := newCgroup(t)
	g := &Generation{cgroup: gen}
	if u := g.Usage(); u != (Usage{}) {
		t.Errorf("nobody runs, and uses %+v", u)
	}
	deep, err := gen.Make("deep")
	if err != nil {
		t.Fatal(err)
	}
	inCgroup(t, gen, "sh", "-c", "while :; do :; done")
	inCgroup(t, deep, "sleep", "1000")
	nettest.Eventually(t, 20*time.Second, "both are counted, and the time of one", func() bool {
		u := g.Usage()
		return u.PIDs == 2 && u.Memory > 1<<18 && u.CPU > 50*time.Millisecond
	})
	if err := gen.Kill(); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, 20*time.Second, "nobody is counted any more", func() bool {
		u := g.Usage()
		return u.PIDs == 0 && u.Memory == 0
	})
}

// Where controllers count, their word counts; what they do not count is asked
// of the processes.
func TestUsageByControllers(t *testing.T) {
	_, instance := fakeTree(t, "cpu memory pids")
	gen := Cgroup(instance.file("blog.1"))
	fake(t, gen, "cpu.stat", "usage_usec 1500000\nuser_usec 1\nthrottled_usec 250000\n")
	fake(t, gen, "memory.current", "4096000\n")
	fake(t, gen, "pids.current", "7000\n")
	fake(t, gen, "cgroup.procs", strconv.Itoa(os.Getpid())+"\n")
	with := &Generation{cgroup: gen, launch: Launch{Budget: &Budget{cgroup: gen, controllers: &Controllers{v2: map[string]bool{"memory": true, "pids": true}}}}}
	want := Usage{Memory: 4096000, CPU: 1500 * time.Millisecond, PIDs: 7000, Throttled: 250 * time.Millisecond}
	if got := with.Usage(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	with.launch.Budget.controllers.v2 = map[string]bool{"pids": true}
	if got := with.Usage(); got.PIDs != 7000 || got.Memory == 4096000 || got.Memory < 1<<20 {
		t.Errorf("without a memory controller: %+v", got)
	}
	if got := (&Generation{cgroup: gen}).Usage(); got.PIDs == 7000 || got.PIDs == 0 || got.CPU != want.CPU {
		t.Errorf("without controllers: %+v", got)
	}
}

// BenchmarkUsage asks for what 1,000 vassals of one process each use, without
// limits, one after the other; the emperor does it for several at a time.
func BenchmarkUsage(b *testing.B) {
	nettest.Root(b)
	const vassals = 1000
	own, err := OwnCgroup()
	if err != nil {
		b.Skip(err)
	}
	var all []*Generation
	base, err := own.Make("fiefdom-usage-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := base.Remove(context.Background()); err != nil {
			b.Error(err)
		}
	})
	for i := range vassals {
		c, err := base.Make(strconv.Itoa(i))
		if err != nil {
			b.Fatal(err)
		}
		inCgroup(b, c, "sleep", "1000")
		all = append(all, &Generation{cgroup: c})
	}
	spent := func() float64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano()+u.Stime.Nano()) / float64(time.Millisecond)
	}
	b.ResetTimer()
	began := spent()
	for b.Loop() {
		for _, g := range all {
			if u := g.Usage(); u.PIDs != 1 {
				b.Fatalf("%+v", u)
			}
		}
	}
	b.ReportMetric((spent()-began)/float64(b.N), "cpu-ms/op") // what a busy machine makes of it aside
}

// Who looks right after another gets the same, but not what a process used that
// had just begun.
func TestUsageIsShared(t *testing.T) {
	_, instance := fakeTree(t, "cpu")
	gen := Cgroup(instance.file("blog.1"))
	fake(t, gen, "cgroup.procs", "")
	now := func(g *Generation, usec string) time.Duration {
		fake(t, gen, "cpu.stat", "usage_usec "+usec+"\n")
		return g.RecentUsage().CPU
	}
	young := &Generation{cgroup: gen, Started: time.Now()}
	if a, b := now(young, "1"), now(young, "2"); a != time.Microsecond || b != 2*time.Microsecond {
		t.Errorf("young: %v, then %v", a, b)
	}
	old := &Generation{cgroup: gen, Started: time.Now().Add(-time.Hour)}
	if a, b := now(old, "3"), now(old, "4"); a != 3*time.Microsecond || b != a {
		t.Errorf("old: %v, then %v", a, b)
	}
	later := func() { old.recent.read = time.Now().Add(-2 * usageTime) }
	later()
	if c := now(old, "5"); c != 5*time.Microsecond {
		t.Errorf("later: %v", c)
	}
	// Who was idle has what he had; who was not is asked.
	fake(t, gen, "cgroup.procs", strconv.Itoa(os.Getpid())+"\n")
	later()
	if u := old.RecentUsage(); u.PIDs != 0 {
		t.Errorf("without CPU time it has %d processes more", u.PIDs)
	}
	later()
	now(old, "6")
	if u := old.RecentUsage(); u.PIDs == 0 || u.Memory == 0 {
		t.Errorf("with CPU time it has %+v", u)
	}
}
