package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// What a crash loop may cost: so many starts in ten minutes, by the delays that
// emperor/backoff_test.go adds up, and this part of a CPU.
const (
	loopStarts = 16
	loopTime   = 10 * time.Minute
	loopShare  = 0.01
)

// leastDelay is what a vassal that dies at once waits at least after so many
// deaths.
func leastDelay(deaths int) time.Duration {
	if deaths < 2 {
		return 0
	}
	return 100 * time.Millisecond << (deaths - 2)
}

// mostStarts is how often such a vassal can have been started in some time.
func mostStarts(within time.Duration) (n int) {
	for at := time.Duration(0); at <= within; at += leastDelay(n) {
		n++
	}
	return n
}

// An app that exits at once is started ever more seldom and costs next to
// nothing; who says restart does not wait. // T50
func TestCrashLoopCostsLittle(t *testing.T) {
	t.Parallel()
	const watched = 7 // starts: some three seconds
	r := newRealm(t, nativeNetwork, nil)
	pid := r.cmdPID()
	spent, began := r.cpuTime(pid), time.Now()
	r.drop("crash", "[uwsgi]\ncommand = /bin/sh -c \"exit 1\"\n")
	s := r.await("crash", "backs off for the last time that is watched", func(s emperor.Status) bool {
		if most := mostStarts(time.Since(began)); s.Starts > most {
			t.Errorf("%d starts after %v, want at most %d", s.Starts, time.Since(began), most)
		}
		if s.State == emperor.Backoff {
			least, waits := leastDelay(s.Deaths), time.Duration(s.Backoff*float64(time.Second))
			if waits < least-time.Millisecond || waits > least+least/4+time.Millisecond {
				t.Errorf("it waits %v after %d deaths, want %v and up to a quarter more", waits, s.Deaths, least)
			}
		}
		return s.State == emperor.Backoff && s.Starts >= watched
	})
	each := (r.cpuTime(pid) - spent) / time.Duration(s.Starts)

	r.run("restart", "crash") // what it says of an app that dies at once is another matter
	again := r.await("crash", "is started again", func(now emperor.Status) bool { return now.Starts > s.Starts })
	if now := time.Now(); now.After(s.NextStart) {
		t.Errorf("a restart by hand came after %v, as late as the one that was due", now.Sub(s.Since))
	}
	if again.Deaths >= s.Deaths {
		t.Errorf("%d deaths in a row count after a restart by hand, %d before it", again.Deaths, s.Deaths)
	}

	r.mustRun("stop", "crash")
	r.awaitState("crash", emperor.Stopped)
	share := r.busy(3*time.Second, pid) + (loopStarts*each).Seconds()/loopTime.Seconds()
	t.Logf("a start takes %v of CPU time, a crash loop %.2f %% of a CPU in ten minutes", ms(each), 100*share)
	if share > loopShare*slowness() {
		t.Errorf("want at most %.0f %%", 100*loopShare*slowness())
	}
}

// Many on demand vassals have their sockets soon after the emperor began, and
// none of them is started before somebody knocks, however they would end. // T50
func TestSoakBootOfManyOnDemand(t *testing.T) {
	t.Parallel()
	const count = 200
	limit := time.Duration(scaled(20, 2)) * time.Second * time.Duration(slowness())
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"emperor-on-demand-directory = /run/t/doors\n")
	r.Run(t, "mkdir", "/run/t/doors")
	for i := range count {
		r.drop(fmt.Sprintf("vassal%03d", i), "[uwsgi]\ncommand = /bin/sh -c \"exit 1\"\n")
	}
	began := time.Now()
	r.start()
	nettest.Eventually(t, limit, "all sockets listen", func() bool { return r.doorsOpen("/run/t/doors/") == count })
	took := time.Since(began)
	t.Logf("%d sockets listen after %v", count, ms(took))
	if took > limit {
		t.Errorf("want within %v", limit)
	}
	r.knocks("/run/t/doors/vassal007.socket")
	r.await("vassal007", "is started", func(s emperor.Status) bool { return s.Starts > 0 })
	for _, s := range r.list() {
		if s.Name != "vassal007" && (s.State != emperor.Sleeping || s.Starts != 0 || s.PID != 0) {
			t.Errorf("%s is %s after %d starts, and nobody has knocked", s.Name, s.State, s.Starts)
		}
	}
	r.stop(syscall.SIGTERM)
}

// doorsOpen counts the unix sockets of a folder that listen; it knocks at none.
func (r *realm) doorsOpen(folder string) (n int) {
	r.t.Helper()
	const listens = "00010000" // __SO_ACCEPTCON
	for line := range strings.Lines(r.Run(r.t, "cat", "/proc/net/unix")) {
		if f := strings.Fields(line); len(f) == 8 && f[3] == listens && strings.HasPrefix(f[7], folder) {
			n++
		}
	}
	return n
}

// knocks connects to a vassal's socket and goes away.
func (r *realm) knocks(address string) {
	r.t.Helper()
	c, err := r.knock(address)
	if err != nil {
		r.t.Fatal(err)
	}
	c.Close()
}
