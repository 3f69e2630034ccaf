package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// Many vassals are started, stopped, restarted, reloaded, killed, removed and
// edited, one every 100 ms, while streams go on between others; emperors are
// killed and upgraded now and then, and routers killed. In the end each vassal
// runs once, no byte was harmed, and nothing is held that was not held before:
// descriptors, goroutines and memory do not grow. // T55
func TestSoakReign(t *testing.T) {
	total := askedTime(t, "FIEFDOM_SOAK_TIME", time.Duration(scaled(20, 3600))*time.Second)
	count := scaled(30, 200)
	vassals := map[string]string{"blog": agentIni, "shop": agentIni}
	for i := range count {
		vassals[fmt.Sprintf("vassal%03d", i)] = subjectIni(0)
	}
	r := newRealm(t, openNetwork+"emperor-throttle = 100\nemperor-max-throttle = 1000\n", vassals)
	seed := rand.Uint64()
	t.Logf("%v with %d vassals, seed %d", total, count, seed)
	s := &reign{realm: r, t: t, count: count, rng: rand.New(rand.NewPCG(seed, 1)), kinds: map[string]int{}}
	s.allRun()
	blog := r.reach("blog")
	at := r.places("blog", "shop")
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{begin: time.Now()}
	stop := func() { cancel(); tr.wg.Wait() }
	t.Cleanup(stop)
	tr.steady(t,
		func() (*flow, error) { return tr.udp(ctx, at["shop"], at["blog"], false, 1000, 5*time.Millisecond) },
		func() (*flow, error) { return tr.ping(ctx, at["blog"], at["inet"], false, 56) },
	)
	// Emperors and routers end in the first half; who rules the second one is
	// looked at for what it holds.
	s.rule(total/2, true)
	s.allRun()
	rounds := max(int(total/(2*time.Minute)), 4)
	var samples []sample
	for range rounds {
		s.rule(total/2/time.Duration(rounds), false)
		s.allRun()
		samples = append(samples, r.settledSample(t, tr))
	}
	stop()
	tr.verify(t)
	last := samples[len(samples)-1]
	for _, line := range unequal(samples[0], last) {
		if !strings.Contains(line, "threads") { // many things at once take more of them, which stay
			t.Error(line)
		}
	}
	for _, line := range unequal(samples[len(samples)/2], last) {
		t.Errorf("in the last half of the time: %s", line)
	}
	checkSlopes(t, samples)
	if diff := unlike(blog, r.reach("blog")); diff != "" {
		t.Errorf("blog, which nobody touched: %s", diff)
	}
	t.Logf("%d changes, %d failed while there was no emperor: %v\n%s%s", s.changes, s.failed.Load(), s.kinds, tr.summary(), loadTable(samples))
	nettest.Eventually(t, patience, "each vassal is there once", func() bool {
		return strings.Count(r.Run(t, "ps", "-eo", "args"), "sleep 100000") == count
	})
	r.stop(syscall.SIGTERM)
}

func subjectIni(version int) string {
	return fmt.Sprintf("[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\nenv = VERSION=%d\n", version)
}

// reign makes changes.
type reign struct {
	*realm
	t       *testing.T
	count   int
	rng     *rand.Rand
	changes int
	kinds   map[string]int
	failed  atomic.Int64 // that no emperor heard
	asking  sync.WaitGroup
}

// rule makes a change every 100 ms for some time.
func (s *reign) rule(length time.Duration, mortal bool) {
	s.t.Helper()
	began := time.Now()
	turn := began // when the emperor or his router last ended
	every := min(length/5, time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < length {
		s.change()
		if mortal && time.Since(turn) > every {
			s.succession()
			turn = time.Now()
		}
		<-tick.C
	}
	s.asking.Wait()
}

// change does something to one vassal. Whatever takes its time is asked beside
// the others.
func (s *reign) change() {
	s.t.Helper()
	name := fmt.Sprintf("vassal%03d", s.rng.IntN(s.count))
	kinds := []string{"start", "stop", "restart", "reload", "kill", "remove", "edit", "touch"}
	kind := kinds[s.rng.IntN(len(kinds))]
	s.changes++
	s.kinds[kind]++
	switch kind {
	case "kill":
		s.asking.Go(func() {
			ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
			defer cancel()
			now, err := s.api.Get(ctx, name)
			if err != nil || now.PID == 0 {
				s.failed.Add(1)
				return
			}
			_, _ = s.Try(s.t, "kill", "-KILL", fmt.Sprint(now.PID)) // it may have ended
		})
	case "remove":
		_ = os.Remove(s.Path(iniPath(name)))
	case "edit", "touch":
		s.drop(name, subjectIni(s.changes*map[string]int{"edit": 1}[kind]))
	default:
		s.asking.Go(func() {
			ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
			defer cancel()
			if _, err := s.api.Do(ctx, name, kind); err != nil {
				s.failed.Add(1) // there is no such vassal now, or no emperor
			}
		})
	}
}

// succession ends the emperor or his router.
func (s *reign) succession() {
	s.t.Helper()
	kind := []string{"kill the emperor", "upgrade", "kill the router"}[s.rng.IntN(3)]
	s.kinds[kind]++
	switch kind {
	case "kill the emperor":
		s.die()
		s.start()
	case "upgrade":
		if out, code := s.run("upgrade"); code != exitOK {
			s.t.Errorf("upgrade: %s", out)
		}
	case "kill the router":
		s.kill(s.routerPID())
	}
}

// allRun brings everybody back, and waits until all run.
func (s *reign) allRun() {
	s.t.Helper()
	s.asking.Wait()
	for i := range s.count {
		s.drop(fmt.Sprintf("vassal%03d", i), subjectIni(s.changes))
	}
	s.allRunWithin(3*patience, s.count+2)
	nettest.Eventually(s.t, 3*patience, "the last changes are over", func() bool {
		all, err := s.listSoon()
		return err == nil && allRun(all) && !slices.ContainsFunc(all, func(v emperor.Status) bool {
			return v.Name != "blog" && v.Name != "shop" && !strings.Contains(s.proc(v.PID, "environ"), fmt.Sprintf("VERSION=%d\x00", s.changes))
		})
	})
}

// settledSample is a sample that is like one a moment before.
func (r *realm) settledSample(t *testing.T, tr *traffic) sample {
	t.Helper()
	return r.settled(t, tr, nil)
}

// checkSlopes compares the first samples with the last: what is held may not
// grow by more than 1 % an hour, beyond what heaps of Go need to breathe.
func checkSlopes(t *testing.T, samples []sample) {
	t.Helper()
	third := max(len(samples)/3, 1)
	first, last := samples[:third], samples[len(samples)-third:]
	hours := (last[0].at - first[0].at).Hours()
	for _, who := range []string{"emperor", "router"} {
		at := func(some []sample) int {
			var row []int
			for _, s := range some {
				row = append(row, s.memory[who])
			}
			return median(row)
		}
		was, is := at(first), at(last)
		slack := 4 << 10 // KiB
		if hours < 0.1 {
			slack = (16 << 10) * int(slowness()) // the heaps still grow to what the load needs
		}
		t.Logf("%s: %d KiB, %.2f h later %d KiB", who, was, hours, is)
		if is > was+int(float64(was)*0.01*hours)+slack {
			t.Errorf("%s: memory grew from %d to %d KiB in %.2f h", who, was, is, hours)
		}
	}
}
