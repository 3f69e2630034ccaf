package emperor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fiefdom/internal/bounded"
)

// Bounds of the stats server: it tells everyone who may connect, one document
// a connection, and waits for nobody.
const (
	statsTimeout = 2 * time.Second
	statsClients = 16
)

// Stats is the document of uWSGI's emperor-stats, with its keys in its order.
// Times are in unix seconds, 0 for never.
type Stats struct {
	Version       string        `json:"version"`
	PID           int           `json:"pid"` // the emperor's
	UID           int           `json:"uid"`
	GID           int           `json:"gid"`
	Cwd           string        `json:"cwd"`
	Emperor       []string      `json:"emperor"` // the monitors
	Tyrant        int           `json:"emperor_tyrant"`
	ThrottleLevel int64         `json:"throttle_level"` // of all starts together: there is none here
	Vassals       []VassalStats `json:"vassals"`
	Blacklist     []Blacklisted `json:"blacklist"`
}

// VassalStats is one vassal of Stats.
type VassalStats struct {
	ID            string `json:"id"`  // its file's name
	PID           int    `json:"pid"` // 0: none runs
	Born          int64  `json:"born"`
	LastMod       int64  `json:"last_mod"` // of its file
	LastHeartbeat int64  `json:"last_heartbeat"`
	Loyal         int    `json:"loyal"`
	Ready         int    `json:"ready"`
	Accepting     int    `json:"accepting"`
	LastLoyal     int64  `json:"last_loyal"`
	LastReady     int64  `json:"last_ready"`
	LastAccepting int64  `json:"last_accepting"`
	FirstRun      int64  `json:"first_run"`
	LastRun       int64  `json:"last_run"` // a reload counts
	Cursed        int    `json:"cursed"`   // told to stop
	Zerg          int    `json:"zerg"`     // never
	OnDemand      string `json:"on_demand"`
	UID           uint32 `json:"uid"` // the file's owner
	GID           uint32 `json:"gid"`
	Monitor       string `json:"monitor"`
	Respawns      int    `json:"respawns"` // restarts and reloads
}

// Blacklisted is a vassal that died young.
type Blacklisted struct {
	ID            string `json:"id"`
	ThrottleLevel int64  `json:"throttle_level"` // ms: its last back-off
	Attempt       int    `json:"attempt"`        // young deaths in a row
	FirstAttempt  int64  `json:"first_attempt"`  // the first of these deaths
	LastAttempt   int64  `json:"last_attempt"`
}

// dates are what the stats tell of a vassal beside what the loop needs.
type dates struct {
	born, firstRun, lastRun time.Time
	firstDeath, lastDeath   time.Time     // of the young ones in a row
	delay                   time.Duration // of the last back-off
}

// ran notes a start that came to run, or a reload.
func (d *dates) ran() {
	d.lastRun = time.Now()
	if d.firstRun.IsZero() {
		d.firstRun = d.lastRun
	}
}

// died notes a death, and the back-off after it.
func (d *dates) died(b *backoff, delay time.Duration) {
	d.lastDeath, d.delay = time.Now(), delay
	if b.deaths <= 1 {
		d.firstDeath = d.lastDeath
	}
}

// ServeStats tells uWSGI's document to whoever connects to l, until ctx is
// done. It closes l.
func (e *Emperor) ServeStats(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	bound, slots := bounded.Listen(l, statsClients), make(chan struct{}, statsClients)
	for {
		c, err := bound.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			e.Log.Warn("stats server", "err", err)
			select {
			case <-time.After(acceptPause): // out of descriptors, most likely
				continue
			case <-ctx.Done():
				return nil
			}
		}
		slots <- struct{}{} // not for long: whoever does not read makes room
		clients.Go(func() {
			defer func() { <-slots }()
			hangUp := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer hangUp()
			defer c.Close()
			e.tellStats(c)
		})
	}
}

func (e *Emperor) tellStats(c net.Conn) {
	s, ok := e.stats()
	if !ok || c.SetDeadline(time.Now().Add(statsTimeout)) != nil {
		return
	}
	enc := json.NewEncoder(c)
	enc.SetIndent("", "\t")
	_ = enc.Encode(s) // who does not read it all has no use for it
}

// stats is the document as of now; false when the emperor is at its end.
func (e *Emperor) stats() (Stats, bool) {
	cwd, _ := os.Getwd()
	s := Stats{
		Version: "fiefdom", PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Cwd: cwd, Tyrant: number(e.Config.Tyrant),
		Emperor: []string{}, Vassals: []VassalStats{}, Blacklist: []Blacklisted{},
	}
	for _, m := range e.Config.Monitors {
		s.Emperor = append(s.Emperor, m.place())
	}
	told := make(chan struct{})
	e.call(func() {
		defer close(told)
		for _, v := range e.vassals {
			s.Vassals = append(s.Vassals, e.statsOf(v))
			if v.backoff.deaths > 0 {
				s.Blacklist = append(s.Blacklist, Blacklisted{
					ID: v.file.base(), ThrottleLevel: v.dates.delay.Milliseconds(), Attempt: v.backoff.deaths,
					FirstAttempt: seconds(v.dates.firstDeath), LastAttempt: seconds(v.dates.lastDeath),
				})
			}
		}
	})
	select {
	case <-told:
	case <-e.stopped:
		return s, false
	}
	slices.SortFunc(s.Vassals, func(a, b VassalStats) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Blacklist, func(a, b Blacklisted) int { return cmp.Compare(a.ID, b.ID) })
	return s, true
}

func (e *Emperor) statsOf(v *member) VassalStats {
	now := v.status()
	return VassalStats{
		ID: v.file.base(), PID: now.PID, Born: seconds(v.dates.born), LastMod: v.file.id.mtime / int64(time.Second),
		Loyal: number(now.Loyal), Ready: number(v.said.ready), Accepting: number(v.said.accepting),
		LastHeartbeat: seconds(v.said.beatAt), LastLoyal: seconds(v.said.loyalAt), LastReady: seconds(v.said.readyAt), LastAccepting: seconds(v.said.acceptedAt),
		FirstRun: seconds(v.dates.firstRun), LastRun: seconds(v.dates.lastRun),
		Cursed: number(v.state == Stopping), OnDemand: now.Socket, UID: v.file.owner.uid, GID: v.file.owner.gid,
		Monitor: e.monitorOf(v.file.path), Respawns: now.Restarts + v.renewals,
	}
}

// monitorOf is the monitor that a file was found by.
func (e *Emperor) monitorOf(path string) string {
	for _, m := range e.Config.Monitors {
		if fits, _ := filepath.Match(m.Pattern, path); fits || m.Dir == filepath.Dir(path) {
			return m.place()
		}
	}
	return ""
}

// place is where a monitor looks, as the emperor's ini says.
func (m Monitor) place() string { return cmp.Or(m.Dir, m.Pattern) }

// base is the file's name in its folder: uWSGI's name of the vassal.
func (f iniFile) base() string { return filepath.Base(f.path) }

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
