package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// succeed kills the emperor, and starts the next one with the same router.
func (r *realm) succeed() {
	r.t.Helper()
	router := r.routerPID()
	r.die()
	r.start()
	if now := r.routerPID(); now != router {
		r.t.Errorf("the router is %d, was %d", now, router)
	}
}

// T35: emperor and router are killed in turn while a download is under way at a
// steady rate, so that a stall is seen. It ends when all are killed.
func TestSoakEmperorAndRouterKilledInTurn(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	kills, least := scaled(4, 100), int64(scaled(32<<20, 1<<30))
	var sent atomic.Int64
	hash, killed := sha256.New(), make(chan struct{})
	r.inet(nettest.InetAddr4, func(w http.ResponseWriter, req *http.Request) {
		source, part := rand.NewChaCha8([32]byte{1}), make([]byte, 256<<10)
		pace := time.NewTicker(8 * time.Millisecond) // 32 MiB/s
		defer pace.Stop()
		for over := false; !over; {
			select {
			case <-killed:
				over = sent.Load() >= least
			case <-req.Context().Done():
				return
			default:
			}
			_, _ = source.Read(part)
			hash.Write(part)
			n, _ := w.Write(part)
			sent.Add(int64(n))
			<-pace.C
		}
	})
	before := map[string]emperor.Status{"blog": r.reach("blog")}
	type result struct {
		fetched
		err error
	}
	done := make(chan result, 1)
	go func() {
		var got result
		var text string
		if text, got.err = r.ask(http.MethodPost, before["blog"].Addresses[0], "/fetch", strings.NewReader("http://198.51.100.2/"), 10*time.Minute); got.err == nil {
			got.err = json.Unmarshal([]byte(text), &got.fetched)
		}
		done <- got
	}()
	for n := range kills {
		at := sent.Load()
		nettest.Eventually(t, patience, "the download goes on", func() bool { return sent.Load() > at })
		if n%2 == 0 {
			r.succeed()
		} else {
			r.killRouter()
		}
	}
	close(killed)
	select {
	case got := <-done:
		t.Logf("%d kills while %d MiB were downloaded; the longest stall was %v", kills, got.Bytes>>20, got.Stall)
		if want := fmt.Sprintf("%x", hash.Sum(nil)); got.err != nil || got.Hash != want || got.Bytes != sent.Load() {
			t.Errorf("the download: %+v, want %s", got, want)
		}
		if got.Stall > time.Second {
			t.Errorf("nothing came for %v", got.Stall)
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("the download does not end")
	}
	r.same(before)
	if strings.Contains(r.allLogged(), "network of the former emperor removed") {
		t.Error("a network that had not changed was made anew")
	}
	r.stop(syscall.SIGTERM)
}

// An app that dies together with the router comes back into its jail: a router
// that is away looks like a device that is lost, for a moment.
func TestJailsOutliveRouterAndApp(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, map[string]string{"blog": agentIni})
	s := r.reach("blog")
	jail := func() string { return strings.TrimSpace(r.Run(t, "readlink", fmt.Sprintf("/proc/%d/ns/net", s.PID))) }
	before := jail()
	r.Run(t, "kill", "-KILL", number(r.routerPID()), number(s.PID))
	s = r.await("blog", "is back", func(now emperor.Status) bool { return now.State == emperor.Running && now.PID != s.PID })
	if now := jail(); now != before {
		t.Errorf("its jail is %s, was %s", now, before)
	}
	r.reach("blog")
	r.stop(syscall.SIGTERM)
}

// The devices of a real uWSGI, which speaks frames and ends with its connection,
// stay connected.
func TestRealDevicesSurviveTheEmperor(t *testing.T) {
	t.Parallel()
	m := newMeeting(t, true, false)
	m.meet()
	processes := func() (all []int) {
		stats, err := m.stats()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range stats.Peers {
			all = append(all, p.PID)
		}
		slices.Sort(all)
		return all
	}
	before := processes()
	for range 3 {
		m.exchange(2, 0, m.succeed)
		if now := processes(); !slices.Equal(now, before) {
			t.Errorf("peers of the processes %v, were %v", now, before)
		}
	}
	m.meet()
	m.stopUWSGI()
	m.Run(t, "sh", "-c", "pkill -KILL -u nobody -x agent; true") // its vassals' daemons may live on
	m.stop(syscall.SIGTERM)
}

// A router without vassals is adopted as well; one that the ini has changed for
// gets what is new.
func TestRouterSurvivesChangedNetworks(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork, nil)
	r.succeed()
	r.die()
	r.write("/run/t/emperor.ini", strings.ReplaceAll(nativeNetwork, "10.9.0.1/", "10.9.64.1/"))
	router := r.routerPID()
	r.start()
	if now := r.routerPID(); now != router {
		t.Errorf("the router is %d, was %d", now, router)
	}
	if out := r.Run(t, "ip", "-br", "address", "show", "fief0"); !strings.Contains(out, "10.9.64.1/") || strings.Contains(out, "10.9.0.1/") {
		t.Errorf("addresses: %s", out)
	}
	r.drop("blog", agentIni)
	r.reach("blog")
	r.die()
	r.write("/run/t/emperor.ini", "[uwsgi]\nemperor = /run/t/vassals\nemperor-orphans = kill\n")
	r.start()
	r.stop(syscall.SIGTERM)
}
