package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What it takes to look at many vassals at once, each with a jail and an app:
// docs/monitoring.md has the numbers of 1,000.
func TestLookAtManySoak(t *testing.T) {
	count := scaled(20, 1000)
	vassals := map[string]string{}
	for i := range count {
		vassals[fmt.Sprintf("vassal%04d", i)] = "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n"
	}
	r := newRealm(t, nativeNetwork+"metrics = /run/t/metrics.sock\nemperor-web = "+webSocket+"\n", vassals)
	nettest.Eventually(t, 10*time.Minute, "all to run", func() bool {
		all, err := r.api.List(t.Context())
		running := 0
		for _, s := range all {
			if s.State == emperor.Running {
				running++
			}
		}
		return err == nil && running == count
	})
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
		before := cpuTime(t, r.cmd.Process.Pid)
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
		used := cpuTime(t, r.cmd.Process.Pid) - before
		t.Logf("%s of %d vassals: %v at best, %v in the middle, %v on average; CPU time of the emperor %v",
			way.name, count, round(took[0]), round(took[times/2]), round(total/times), round(used/times))
	}
}

// cpuTime is what a process has used, in steps of 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ticks [2]int64
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return time.Duration(ticks[0]+ticks[1]) * 10 * time.Millisecond
}
