package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// A thousand vassals boot within a minute, and are looked at within 100 ms: of
// several looks the best one says what it takes, the others what else the
// machine does. // T56
func TestSoakScale(t *testing.T) {
	const bootTime, lookTime = time.Minute, 100 * time.Millisecond
	count := scaled(20, 1000)
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	for i := range count {
		r.drop(fmt.Sprintf("vassal%04d", i), "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n")
	}
	began := time.Now()
	r.start()
	r.allRunWithin(bootTime*time.Duration(slowness()), count)
	t.Logf("%d vassals run after %v", count, ms(time.Since(began)))
	for name, look := range map[string]func(){
		"ps --json":      func() { r.mustRun("ps", "--json") },
		"list":           func() { r.list() },
		"status of one":  func() { r.ps("vassal0007") },
		"ps for a human": func() { r.mustRun("ps") },
	} {
		best, total := time.Hour, time.Duration(0)
		times := time.Duration(scaled(3, 10))
		spent := r.cpuTime(r.cmdPID())
		for range times {
			time.Sleep(time.Second) // nothing of the look before serves the next
			began := time.Now()
			look()
			took := time.Since(began)
			best, total = min(best, took), total+took
		}
		t.Logf("%s: %v at best, %v on average; CPU time of the emperor %v", name, ms(best), ms(total/times), ms((r.cpuTime(r.cmdPID())-spent)/times))
		if best > lookTime*time.Duration(slowness()) {
			t.Errorf("%s takes %v at best", name, best)
		}
	}
	// The kernel gives devices back one after the other, everybody else's too.
	r.longer = bootTime
	began = time.Now()
	r.stop(syscall.SIGTERM)
	t.Logf("stopped after %v", ms(time.Since(began)))
}
