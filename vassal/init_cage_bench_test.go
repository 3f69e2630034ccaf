package vassal

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

// BenchmarkConfinement starts an app with compat and confined in other ways, one after
// the other, so that all meet the same machine, and shows what each costs more than
// compat, in all and of processor time: medians.
func BenchmarkConfinement(b *testing.B) {
	nettest.Root(b)
	j, err := NewLoneJail("bench")
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	cgroups := cgroupsOf(b)
	full := confinedPlan(LevelDefault, "exit 0")
	compat, strict := full, full
	compat.Confined, compat.Reaper, compat.Proc = nil, false, false
	strict.Confined = &Confined{Level: LevelStrict}
	kinds := []struct {
		name       string
		plan       Plan
		namespaces uintptr
		wall, cpu  []time.Duration
	}{
		{name: "compat", plan: compat, namespaces: unix.CLONE_NEWNS},
		{name: "default", plan: full, namespaces: fullNamespaces},
		{name: "strict", plan: strict, namespaces: fullNamespaces},
		{name: "ranged", plan: rangedPlan(false), namespaces: fullNamespaces},
	}
	for b.Loop() {
		for i := range kinds {
			k := &kinds[i]
			l := Launch{Plan: k.plan, Namespaces: k.namespaces, Output: null, Cgroup: cgroups()}
			before, since := cpuTime(b), time.Now()
			g, err := j.Start(b.Context(), l)
			if err != nil {
				b.Fatal(err)
			}
			k.wall = append(k.wall, time.Since(since))
			g.Wait()
			k.cpu = append(k.cpu, cpuTime(b)-before)
		}
	}
	ms := func(all []time.Duration) float64 { // the median
		slices.Sort(all)
		return float64(all[len(all)/2].Microseconds()) / 1000
	}
	wall, cpu := ms(kinds[0].wall), ms(kinds[0].cpu)
	b.ReportMetric(wall, "compat-ms")
	b.ReportMetric(cpu, "compat-cpu-ms")
	for _, k := range kinds[1:] {
		b.ReportMetric(ms(k.wall)-wall, k.name+"-more-ms")
		b.ReportMetric(ms(k.cpu)-cpu, k.name+"-more-cpu-ms")
	}
}

// cgroupsOf makes a cgroup for each start, as an emperor does: how a generation is ended
// depends on it.
func cgroupsOf(b *testing.B) func() Cgroup {
	b.Helper()
	base, n := newCgroup(b), 0
	return func() Cgroup {
		n++
		c, err := base.Make(strconv.Itoa(n))
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
}

// cpuTime is what this process and those that it has waited for have used.
func cpuTime(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
