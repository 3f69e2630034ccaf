package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Many vassals, each with a jail and an app, are looked at in less than 100 ms:
// docs/monitoring.md has the numbers of 1,000. The look in the middle of several is
// judged, as a machine has other things to do now and then. // T56
func TestLookAtManySoak(t *testing.T) {
	const lookTime = 100 * time.Millisecond
	count := scaled(20, 1000)
	vassals := map[string]string{}
	for i := range count {
		vassals[fmt.Sprintf("vassal%04d", i)] = "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n"
	}
	r := newRealm(t, nativeNetwork+"metrics = /run/t/metrics.sock\nemperor-web = "+webSocket+"\n", vassals)
	r.allRunWithin(10*time.Minute, count)
	pause := time.Duration(scaled(0, int(1100*time.Millisecond)))
	for _, way := range []struct {
		name  string
		look  func() error
		pause time.Duration // before each: what is shown a second time is not asked for again
	}{
		{"fiefdom ps --json", func() error { r.mustRun("ps", "--json"); return nil }, 0},
		{"refresh of fiefdom top", func() error { _, err := r.api.List(t.Context()); return err }, 0},
		{"scrape", func() error { _, _, err := r.scrape("/run/t/metrics.sock"); return err }, 0},
		{"web page", func() error { return r.look("/") }, pause},
		{"web page, again within a second", func() error { return r.look("/") }, 0},
		{"web page with all rows", func() error { return r.look(fmt.Sprintf("/?rows=%d", count)) }, pause},
		{"web page of one", func() error { return r.look("/vassal?name=vassal0007") }, pause},
	} {
		var took []time.Duration
		var total time.Duration
		const times = 20
		before := r.cpuTime(r.cmdPID())
		for range times {
			time.Sleep(way.pause)
			began := time.Now()
			if err := way.look(); err != nil {
				t.Fatalf("%s: %v", way.name, err)
			}
			took = append(took, time.Since(began))
			total += took[len(took)-1]
		}
		slices.Sort(took)
		round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
		used := r.cpuTime(r.cmdPID()) - before
		t.Logf("%s of %d vassals: %v at best, %v in the middle, %v on average; CPU time of the emperor %v",
			way.name, count, round(took[0]), round(took[times/2]), round(total/times), round(used/times))
		if took[times/2] > lookTime*time.Duration(slowness()) {
			t.Errorf("%s takes %v in the middle", way.name, round(took[times/2]))
		}
	}
}
