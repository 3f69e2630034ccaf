package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"time"

	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// steady is requests that come at a rate, whatever becomes of those before: a
// stall is felt by all that fall into it, and counted from when each was due. One
// in four goes to an agent by the router on a connection that is kept, one on a
// new connection, and two likewise to another agent by its door. Beside them as
// many as one of these go to an agent that no emperor knows, and feel nothing but
// the machine.
type steady struct {
	stop chan struct{}
	wg   sync.WaitGroup
	why  error // of the last that failed; for who has ended it

	beside *exec.Cmd // the agent that no emperor knows

	mu  sync.Mutex
	now visits
}

// visits are the requests by each way.
type visits struct{ router, door, beside waits }

func (v visits) String() string {
	return fmt.Sprintf("by the router %v; by the door %v; beside %v", v.router, v.door, v.beside)
}

func (v *visits) failed() int { return v.router.failed + v.door.failed + v.beside.failed }

// stall is how much longer somebody waited than whoever was beside him then. What
// the machine did at another time is no excuse.
func (v *visits) stall() (worst time.Duration) {
	for _, w := range [][]wait{v.router.all, v.door.all} {
		for i := len(w) - 1; i >= 0 && w[i].took > worst; i-- {
			var machine time.Duration
			for _, b := range v.beside.all {
				if b.due.Before(w[i].due.Add(w[i].took)) && w[i].due.Before(b.due.Add(b.took)) {
					machine = max(machine, b.took)
				}
			}
			worst = max(worst, w[i].took-machine)
		}
	}
	return worst
}

// wait is how long a request took.
type wait struct {
	due  time.Time
	took time.Duration
}

// waits are the requests by one way, the longest last once all have come.
type waits struct {
	all    []wait
	failed int
}

func (w *waits) note(due time.Time, took time.Duration, err error) {
	if w.all = append(w.all, wait{due, took}); err != nil {
		w.failed++
	}
}

func (w *waits) sort() {
	slices.SortFunc(w.all, func(a, b wait) int { return cmp.Compare(a.took, b.took) })
}

func (w *waits) at(part float64) time.Duration {
	if len(w.all) == 0 {
		return 0
	}
	return w.all[int(part*float64(len(w.all)-1))].took
}

func (w waits) String() string {
	ms := func(part float64) string { return fmt.Sprintf("%.1f", w.at(part).Seconds()*1000) }
	return fmt.Sprintf("%d requests, %d failed; ms: p50 %s, p99 %s, p99.9 %s, max %s", len(w.all), w.failed, ms(0.5), ms(0.99), ms(0.999), ms(1))
}

// visit begins a steady load.
func (r *realm) visit(addr netip.Addr, door string, perSecond int) *steady {
	s := &steady{stop: make(chan struct{}), beside: exec.Command("agent", "8001")}
	r.Start(r.t, s.beside)
	local := netip.MustParseAddr("127.0.0.1")
	nettest.Eventually(r.t, patience, "the agent beside answers", func() bool {
		c, err := r.dial(r.t.Context(), local, "8001")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	byRouter := func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx, addr, "8000") }
	byNobody := func(ctx context.Context, _, _ string) (net.Conn, error) { return r.dial(ctx, local, "8001") }
	byDoor := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.Path(door))
	}
	type dialer func(context.Context, string, string) (net.Conn, error)
	client := func(dial dialer, anew bool) *http.Client {
		return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: anew, MaxIdleConnsPerHost: 32}}
	}
	clients := []*http.Client{client(byRouter, false), client(byRouter, true), client(byDoor, false), client(byDoor, true), client(byNobody, true)}
	ways := []*waits{&s.now.router, &s.now.router, &s.now.door, &s.now.door, &s.now.beside}
	s.wg.Go(func() {
		defer func() {
			for _, c := range clients {
				c.CloseIdleConnections()
			}
		}()
		var visitors sync.WaitGroup
		defer visitors.Wait()
		every := time.Second * 4 / 5 / time.Duration(perSecond)
		due := time.Now()
		for n := 0; ; n++ {
			select {
			case <-s.stop:
				return
			case <-time.After(time.Until(due)):
			}
			client, way, at := clients[n%len(clients)], ways[n%len(ways)], due
			visitors.Go(func() { s.note(way, at, ask(client)) })
			due = due.Add(every)
		}
	})
	return s
}

func (r *realm) dial(ctx context.Context, addr netip.Addr, port string) (c net.Conn, err error) {
	err = netns.Do(r.Host.Handle, func() error {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		return err
	})
	return c, err
}

func ask(client *http.Client) error {
	_, err := bodyOf(client.Get("http://vassal/"))
	return err
}

func (s *steady) note(w *waits, due time.Time, err error) {
	took := time.Since(due)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.note(due, took, err); err != nil {
		s.why = err
	}
}

// next returns what there was since the last time.
func (s *steady) next() visits {
	s.mu.Lock()
	v := s.now
	s.now = visits{}
	s.mu.Unlock()
	for _, w := range []waits{v.router, v.door, v.beside} {
		w.sort()
	}
	return v
}

// end ends the load when all are answered.
func (s *steady) end() {
	close(s.stop)
	s.wg.Wait()
	_ = s.beside.Process.Kill()
	_ = s.beside.Wait()
}
