package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fiefdom/internal/netns"
)

// steady is requests that come at a rate, whatever becomes of those before: a
// stall is felt by all that fall into it, and counted from when each was due. One
// in four goes to an agent by the router on a connection that is kept, one on a
// new connection, and two likewise to another agent by its door.
type steady struct {
	stop chan struct{}
	wg   sync.WaitGroup
	why  error // of the last that failed; for who has ended it

	mu  sync.Mutex
	now visits
}

// visits are the requests by each way: the router, the door.
type visits [2]waits

func (v visits) String() string { return fmt.Sprintf("by the router %v; by the door %v", v[0], v[1]) }

func (v *visits) failed() int { return v[0].failed + v[1].failed }

func (v *visits) max() time.Duration { return max(v[0].at(1), v[1].at(1)) }

// waits are how long requests took.
type waits struct {
	all    []time.Duration
	failed int
}

func (w *waits) at(part float64) time.Duration {
	if len(w.all) == 0 {
		return 0
	}
	return w.all[int(part*float64(len(w.all)-1))]
}

func (w waits) String() string {
	ms := func(part float64) string { return fmt.Sprintf("%.1f", w.at(part).Seconds()*1000) }
	return fmt.Sprintf("%d requests, %d failed; ms: p50 %s, p99 %s, p99.9 %s, max %s", len(w.all), w.failed, ms(0.5), ms(0.99), ms(0.999), ms(1))
}

// visit begins a steady load.
func (r *realm) visit(addr netip.Addr, door string, perSecond int) *steady {
	s := &steady{stop: make(chan struct{})}
	byRouter := func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = netns.Do(r.Host.Handle, func() error {
			c, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), "8000"))
			return err
		})
		return c, err
	}
	byDoor := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.Path(door))
	}
	var clients []*http.Client
	for _, dial := range []func(context.Context, string, string) (net.Conn, error){byRouter, byDoor} {
		for _, anew := range []bool{false, true} {
			clients = append(clients, &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: anew, MaxIdleConnsPerHost: 32}})
		}
	}
	s.wg.Go(func() {
		defer func() {
			for _, c := range clients {
				c.CloseIdleConnections()
			}
		}()
		var visitors sync.WaitGroup
		defer visitors.Wait()
		every := time.Second / time.Duration(perSecond)
		due := time.Now()
		for n := 0; ; n++ {
			select {
			case <-s.stop:
				return
			case <-time.After(time.Until(due)):
			}
			client, at := clients[n%len(clients)], due
			visitors.Go(func() { s.note(n%len(clients)/2, at, ask(client)) })
			due = due.Add(every)
		}
	})
	return s
}

func ask(client *http.Client) error {
	resp, err := client.Get("http://vassal/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}

func (s *steady) note(way int, due time.Time, err error) {
	took := time.Since(due)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.now[way]
	w.all = append(w.all, took)
	if err != nil {
		w.failed++
		s.why = err
	}
}

// next returns what there was since the last time.
func (s *steady) next() visits {
	s.mu.Lock()
	v := s.now
	s.now = visits{}
	s.mu.Unlock()
	for _, w := range v {
		slices.Sort(w.all)
	}
	return v
}

// end ends the load when all are answered.
func (s *steady) end() {
	close(s.stop)
	s.wg.Wait()
}
