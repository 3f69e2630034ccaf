package main

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// lookTime is the most that a look at 1,000 vassals may take, on a machine that
// is not busy with anything else: of several looks the best one says that.
const lookTime = 100 * time.Millisecond

// What it takes to boot many vassals, each with a jail and an app, and to look at
// them all at once: docs/monitoring.md has the numbers of 1,000. // T56
func TestLookAtManySoak(t *testing.T) {
	count := scaled(20, 1000)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"metrics = /run/t/metrics.sock\n")
	for i := range count {
		r.drop(fmt.Sprintf("vassal%04d", i), "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n")
	}
	began := time.Now()
	r.start()
	nettest.Eventually(t, time.Minute*time.Duration(slowness()), "all to run", func() bool {
		all, err := r.api.List(t.Context())
		running := 0
		for _, s := range all {
			if s.State == emperor.Running {
				running++
			}
		}
		return err == nil && running == count
	})
	t.Logf("%d vassals run after %v", count, ms(time.Since(began)))
	for _, way := range []struct {
		name string
		look func() error
	}{
		{"fiefdom ps --json", func() error { r.mustRun("ps", "--json"); return nil }},
		{"refresh of fiefdom top", func() error { _, err := r.api.List(t.Context()); return err }},
		{"scrape", func() error { _, _, err := r.scrape("/run/t/metrics.sock"); return err }},
	} {
		var best, total time.Duration
		times := time.Duration(scaled(3, 20))
		spent := r.spent()
		for i := range times {
			time.Sleep(time.Second) // the usual pause between two looks: nothing of the one before serves the next
			began := time.Now()
			if err := way.look(); err != nil {
				t.Fatalf("%s: %v", way.name, err)
			}
			took := time.Since(began)
			total += took
			if i == 0 || took < best {
				best = took
			}
		}
		after := r.spent()
		if best > lookTime*time.Duration(slowness()) {
			t.Errorf("%s of %d vassals takes %v at best", way.name, count, best)
		}
		t.Logf("%s of %d vassals: %v at best, %v on average; CPU time of the emperor %v, of the router %v, of who looks %v",
			way.name, count, ms(best), ms(total/times), ms((after[0]-spent[0])/times), ms((after[1]-spent[1])/times), ms((after[2]-spent[2])/times))
	}
}

// spent is the CPU time that the emperor, his router, and the commands of this
// process have had.
func (r *realm) spent() (spent [3]time.Duration) {
	r.t.Helper()
	for i, pid := range []int{r.cmdPID(), r.routerPID()} {
		spent[i] = r.cpuTime(pid)
	}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		r.t.Fatal(err)
	}
	spent[2] = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	return spent
}
