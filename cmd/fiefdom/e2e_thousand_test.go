package main

import (
	"fmt"
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
	r := newRealm(t, nativeNetwork+"metrics = /run/t/metrics.sock\n", vassals)
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
	for _, way := range []struct {
		name string
		look func() error
	}{
		{"fiefdom ps --json", func() error { r.mustRun("ps", "--json"); return nil }},
		{"refresh of fiefdom top", func() error { _, err := r.api.List(t.Context()); return err }},
		{"scrape", func() error { _, _, err := r.scrape("/run/t/metrics.sock"); return err }},
	} {
		var best, total time.Duration
		const times = 20
		for i := range times {
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
		t.Logf("%s of %d vassals: %v at best, %v on average", way.name, count, best.Round(time.Microsecond*100), (total / times).Round(time.Microsecond*100))
	}
}
