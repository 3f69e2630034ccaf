package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// recovery is how soon all is well again when what was missing is there.
const recovery = 5 * time.Second

// someFiles are as many open files more as some vassals take, and not all.
const someFiles = 36

// An emperor or a router that is out of descriptors goes on with what it has,
// does not spin, says what is wrong, and starts the others as soon as it may
// open more. // T22
func TestSoakOutOfDescriptors(t *testing.T) {
	for _, who := range []string{"emperor", "router"} {
		says := map[string]string{"emperor": "raise LimitNOFILE=", "router": "is it out of descriptors"}[who]
		t.Run(who, func(t *testing.T) {
			r := newRealm(t, nativeNetwork, map[string]string{"first": agentIni})
			first := r.reach("first")
			pid := map[string]func() int{"emperor": r.cmdPID, "router": r.routerPID}[who]()
			open, err := os.ReadDir(r.Path(fmt.Sprintf("/proc/%d/fd", pid)))
			if err != nil {
				t.Fatal(err)
			}
			lift := r.limitFiles(pid, len(open)+someFiles)
			count := scaled(60, 100)
			for i := range count {
				r.drop(fmt.Sprintf("vassal%03d", i), "[uwsgi]\ncommand = sleep 100000\nreload-mercy = 0\n")
			}
			// Who asks may have to wait for a descriptor, too.
			nettest.Eventually(t, patience, "some run, others cannot, and say why", func() bool {
				all, err := r.listSoon()
				running, wanting := 0, 0
				for _, s := range all {
					if s.State == emperor.Running {
						running++
					}
					if strings.Contains(s.Error, says) {
						wanting++
					}
				}
				return err == nil && len(all) == count+1 && running > 1 && wanting > count/4
			})
			r.checkIdle(pid)
			if diff := unlike(first, r.ps("first")); diff != "" || !r.answers(first.Addresses[0]) {
				t.Errorf("first: %s", diff)
			}
			lift()
			r.recovers(count + 1)
			if now := map[string]func() int{"emperor": r.cmdPID, "router": r.routerPID}[who](); now != pid {
				t.Errorf("the %s is %d, was %d", who, now, pid)
			}
			if diff := unlike(first, r.reach("first")); diff != "" {
				t.Errorf("first: %s", diff)
			}
			before := r.list() // the vault has them all: the next emperor restarts nobody
			r.die()
			r.start()
			r.quiet()
			for _, s := range before {
				if diff := unlike(s, r.ps(s.Name)); diff != "" {
					t.Errorf("%s: %s", s.Name, diff)
				}
			}
			r.stop(syscall.SIGTERM)
		})
	}
}

// With no descriptor at all, or with too few to read an ini, whatever happens
// waits, and nobody's app suffers: apps die, inis change and come, the router dies. // T22
func TestNoDescriptorAtAll(t *testing.T) {
	for _, free := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d left", free), func(t *testing.T) {
			t.Parallel()
			vassals := map[string]string{}
			for _, name := range []string{"calm", "dies", "changes"} {
				vassals[name] = agentIni
			}
			// Nobody is unwell because he cannot be asked, nor is a daemon sick.
			vassals["calm"] += "health = tcp:8000\nhealth-interval = 1\nhealth-count = 2\n"
			vassals["asked"] = agentIni + "health = exec:true\nhealth-interval = 1\nhealth-count = 2\n"
			vassals["crew"] = agentIni + "attach-daemon = exec sleep 1015\n"
			r := newRealm(t, nativeNetwork, vassals)
			before := map[string]emperor.Status{}
			for name := range vassals {
				before[name] = r.reach(name)
			}
			before["crew"] = r.await("crew", "has its daemon", func(s emperor.Status) bool { return attached(s, "sleep").PID != 0 })
			pid := r.cmdPID()
			lift := r.limitFiles(pid, r.costs()[0]+free)
			r.drop("changes", agentIni+"env = CHANGED=1\n")
			r.drop("comes", agentIni)
			r.kill(before["dies"].PID)
			for _, daemon := range before["crew"].Processes {
				r.kill(daemon.PID)
			}
			r.kill(r.routerPID())
			r.checkIdle(pid)
			lift()
			r.recovers(6)
			for _, name := range []string{"calm", "asked"} {
				if diff := unlike(before[name], r.reach(name)); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			}
			for _, name := range []string{"dies", "changes", "comes"} {
				r.reach(name)
			}
			r.await("crew", "has its daemon again", func(s emperor.Status) bool {
				return s.PID == before["crew"].PID && !slices.ContainsFunc(s.Processes, func(p emperor.ProcessStatus) bool { return p.State != emperor.Running })
			})
			nettest.Eventually(t, recovery, "it has changed", func() bool {
				return strings.Contains(r.proc(r.ps("changes").PID, "environ"), "CHANGED=1")
			})
			r.stop(syscall.SIGTERM)
		})
	}
}

// limitFiles sets how many files a process of the world may have open, until it
// is lifted. Only who has its ids may do so everywhere.
func (r *realm) limitFiles(pid, n int) (lift func()) {
	r.t.Helper()
	status := statusOf(r.proc(pid, "status"))
	id := func(field string) string { return strings.Fields(status[field])[0] }
	prlimit := func(args ...string) string {
		r.t.Helper()
		as := []string{"--reuid", id("Uid"), "--regid", id("Gid"), "--clear-groups", "prlimit", "--pid", strconv.Itoa(pid)}
		return strings.TrimSpace(r.Run(r.t, "setpriv", append(as, args...)...))
	}
	before := prlimit("--nofile", "--noheadings", "--output", "SOFT")
	prlimit(fmt.Sprintf("--nofile=%d:", n))
	return func() { r.t.Helper(); prlimit("--nofile=" + before + ":") }
}

// recovers says that soon nobody waits for what was missing any more. How long
// so many starts take is another matter, and the machine's.
func (r *realm) recovers(count int) {
	r.t.Helper()
	var waiting []emperor.Status
	defer func() {
		for _, s := range waiting {
			if r.t.Failed() {
				r.t.Logf("%s is %s: %s", s.Name, s.State, s.Error)
			}
		}
	}()
	nettest.Eventually(r.t, recovery*time.Duration(slowness()), "nobody waits", func() bool {
		all, err := r.listSoon()
		waiting = slices.DeleteFunc(slices.Clone(all), func(s emperor.Status) bool { return s.State == emperor.Running || s.State == emperor.Starting })
		return err == nil && len(all) == count && len(waiting) == 0
	})
	r.allRunWithin(3*patience, count)
}

// allRunWithin waits until so many vassals are there, and all of them run.
func (r *realm) allRunWithin(limit time.Duration, count int) (took time.Duration) {
	r.t.Helper()
	var all []emperor.Status
	defer func() {
		for _, s := range all {
			if r.t.Failed() && s.State != emperor.Running {
				r.t.Logf("%s is %s, starts %d, next in %v: %s", s.Name, s.State, s.Starts, time.Until(s.NextStart), s.Error)
			}
		}
	}()
	began := time.Now()
	nettest.Eventually(r.t, limit, fmt.Sprintf("all %d run", count), func() bool {
		var err error
		all, err = r.listSoon()
		return err == nil && len(all) == count && allRun(all)
	})
	took = time.Since(began)
	r.t.Logf("all %d run after %v", count, ms(took))
	return took
}

// checkIdle says that a process which lacks something does not spin for it.
func (r *realm) checkIdle(pid int) {
	r.t.Helper()
	busy := 100 * r.busy(5*time.Second, pid)
	r.t.Logf("it takes %.1f %% of a CPU", busy)
	if busy > 5*slowness() {
		r.t.Error("want less than 5 %")
	}
}

// busy is the part of a CPU that a process, with its children that have ended,
// takes for some time.
func (r *realm) busy(during time.Duration, pid int) float64 {
	r.t.Helper()
	before := r.cpuTime(pid)
	time.Sleep(during) // what is measured is a time
	return (r.cpuTime(pid) - before).Seconds() / during.Seconds()
}

// cpuTime is what a process, with its children that have ended, had of CPUs.
func (r *realm) cpuTime(pid int) (sum time.Duration) {
	r.t.Helper()
	_, rest, _ := strings.Cut(r.proc(pid, "stat"), ") ")
	for _, field := range strings.Fields(rest)[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.Atoi(field)
		if err != nil {
			r.t.Fatal(err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

// slowness is how many times longer all takes under the race detector.
func slowness() float64 {
	if nettest.Raced() {
		return 4
	}
	return 1
}

// listSoon asks an emperor that may not be able to answer.
func (r *realm) listSoon() ([]emperor.Status, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Second)
	defer cancel()
	return r.api.List(ctx)
}
