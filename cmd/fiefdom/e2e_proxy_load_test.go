package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/nettest"
)

// audience is visitors of vassals behind a proxy, each at each in turn, while some of
// the vassals are started anew.
type audience struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu         sync.Mutex
	all, anew  waits // of vassals that were left alone meanwhile, of the others
	why, wrong error // the last that failed, that came from another vassal
}

// site is a vassal as its visitors see it.
type site struct {
	name string
	turn atomic.Int32 // odd while it is started anew
	pid  atomic.Int64
}

// gather sends visitors at a rate, whatever becomes of those before.
func (r *realm) gather(sites []*site, perSecond int) *audience {
	a := &audience{stop: make(chan struct{})}
	client := r.visitor()
	a.wg.Go(func() {
		for n, due := 0, time.Now(); ; n++ {
			select {
			case <-a.stop:
				return
			case <-time.After(time.Until(due)):
			}
			s, at := sites[n%len(sites)], due
			a.wg.Go(func() { a.visit(client, s, at) })
			due = due.Add(time.Second / time.Duration(perSecond))
		}
	})
	return a
}

// visit asks a vassal for its page, which has its pid.
func (a *audience) visit(client *http.Client, s *site, due time.Time) {
	turn, pid := s.turn.Load(), s.pid.Load()
	text, err := page(client, "http://"+s.name+".example.org/")
	took := time.Since(due)
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &a.anew
	if turn%2 == 0 && turn == s.turn.Load() {
		w = &a.all
		switch {
		case err != nil:
			a.why = fmt.Errorf("%s: %w", s.name, err)
		case text != fmt.Sprint(pid):
			a.wrong = fmt.Errorf("%s, with pid %d, answers %q", s.name, pid, text)
		}
	}
	w.note(due, took, err)
}

// disperse ends the load and returns the requests to vassals that were left alone,
// and to those that were started anew meanwhile.
func (a *audience) disperse(t testing.TB) (all, anew waits) {
	t.Helper()
	close(a.stop)
	a.wg.Wait()
	for _, w := range []*waits{&a.all, &a.anew} {
		w.sort()
	}
	t.Logf("vassals that were left alone: %v", a.all)
	t.Logf("vassals while they were started anew: %v", a.anew)
	if a.all.failed > 0 || a.why != nil {
		t.Errorf("%d requests to vassals that were left alone failed; the last: %v", a.all.failed, a.why)
	}
	if a.wrong != nil {
		t.Error(a.wrong)
	}
	return a.all, a.anew
}

// restarts starts one vassal anew a second, in turn.
func (r *realm) restarts(sites []*site, times int) {
	r.t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := range times {
		s := sites[n%len(sites)]
		s.turn.Add(1)
		r.mustRun("restart", s.name)
		s.pid.Store(int64(r.reach(s.name).PID))
		s.turn.Add(1)
		<-tick.C // one a second is what is promised
	}
}

// found waits until a vassal is found by its name at the proxy.
func (r *realm) found(vassals ...string) (sites []*site) {
	r.t.Helper()
	for _, name := range vassals {
		by := r.reach(name)
		r.served(name+".example.org", by)
		s := &site{name: name}
		s.pid.Store(int64(by.PID))
		sites = append(sites, s)
	}
	return sites
}

// Vassals behind a real nginx by name, one of them started anew a second: requests
// to the others never fail. It measures, and so runs beside no other.
func TestSoakNginx(t *testing.T) {
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork)
	r.longer = time.Minute
	r.layNginx("vassals.conf")
	r.before = r.Snapshot(t)
	end := r.nginx()
	if text, err := page(r.visitor(), "http://app000.example.org/"); err == nil {
		t.Errorf("before there is anybody whom it could find: %q", text)
	}
	var names []string
	for n := range scaled(12, 150) {
		names = append(names, fmt.Sprintf("app%03d", n))
		r.drop(names[n], tellsPID)
	}
	r.start()
	sites := r.found(names...)
	load := r.gather(sites, scaled(200, 500))
	r.restarts(sites, scaled(5, 60))
	all, _ := load.disperse(t)
	if len(all.all) < scaled(500, 15000) {
		t.Errorf("only %d requests", len(all.all))
	}
	r.manners(names[0] + ".example.org")

	// Who comes is found, and who goes is gone, and nginx is told nothing.
	client := r.visitor()
	if text, err := page(client, "http://late.example.org/"); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("nobody's page (%v): %q", err, text)
	}
	r.drop("late", tellsPID)
	r.found("late")
	r.remove("late")
	nettest.Eventually(t, patience, "late is gone", func() bool { return r.ps("late").Name == "" })
	if text, err := page(client, "http://late.example.org/"); err == nil {
		t.Errorf("the page of a vassal that is gone: %q", text)
	}
	end()
	r.stop(syscall.SIGTERM)
}

// The same with Caddy, which has whoever comes while a vassal is started anew wait:
// no request fails at all.
func TestSoakCaddy(t *testing.T) {
	r := layRealm(t, nettest.NewWorld(t), "emperor", nativeNetwork+"tuntap-router-address = fd00:9::1/64\n")
	names := []string{"blog", "shop", "wiki"}
	for _, name := range names {
		r.drop(name, tellsPID)
	}
	r.start()
	end := r.caddy()
	sites := r.found(names...)
	load := r.gather(sites, 100)
	r.restarts(sites, scaled(4, 30))
	if _, anew := load.disperse(t); anew.failed > 0 || len(anew.all) == 0 {
		t.Errorf("%d of %d requests to vassals that were started anew failed", anew.failed, len(anew.all))
	}
	r.manners("blog.example.org")
	r.drop("late", tellsPID)
	r.found("late")
	end()
	r.stop(syscall.SIGTERM)
}
