package emperor

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"fiefdom/vassal"
)

// Status is a vassal as "fiefdom ps --json" shows it. The schema is stable:
// fields are only added.
type Status struct {
	Name      string            `json:"name"`
	File      string            `json:"file"`
	State     State             `json:"state"`
	PID       int               `json:"pid"`       // of the app; 0: none runs
	UID       int               `json:"uid"`       // that the app runs under; -1: not known yet
	Addresses []netip.Addr      `json:"addresses"` // registered
	Restarts  int               `json:"restarts"`
	Since     time.Time         `json:"since"`                // of the state
	RxBytes   uint64            `json:"rx_bytes"`             // received by the vassal
	TxBytes   uint64            `json:"tx_bytes"`             // sent by the vassal
	Drops     map[string]uint64 `json:"drops"`                // packets, by reason
	Error     string            `json:"error"`                // why it is invalid or down, or did not take its new ini
	LastEnd   string            `json:"last_end,omitempty"`   // why it last ended by itself, or did not start
	LastEndAt time.Time         `json:"last_end_at,omitzero"` // when that was
	Deaths    int               `json:"deaths,omitempty"`     // of a young app, or starts that failed, in a row
	NextStart time.Time         `json:"next_start,omitzero"`  // in backoff: when it is started again
	Says      string            `json:"says,omitempty"`       // what the app says of itself, by sd_notify's STATUS and the like
	Loyal     bool              `json:"loyal"`                // it runs and has proved to work
	Accepting bool              `json:"accepting"`            // it runs and has said, by the emperor protocol, that it takes requests
	Published []PublishedStatus `json:"published,omitempty"`  // ports of the host's that lead to it now
	Command   []string          `json:"command,omitempty"`
	Socket    string            `json:"socket,omitempty"` // on demand: the address whose connections wake it
	Warnings  []string          `json:"warnings,omitempty"`
	Processes []ProcessStatus   `json:"processes,omitempty"` // beside the command, or the only ones
	Starts    int               `json:"starts"`              // that were tried, failed ones too
	Backoff   float64           `json:"backoff_seconds"`     // how long the back-off is that it waits for; 0: none

	Output *OutputStatus `json:"output,omitempty"` // none before the first start

	Attributes map[string][]string `json:"attributes,omitempty"` // what its ini tells the emperor (emperor-collect-attribute), by key

	MemoryBytes      uint64       `json:"memory_bytes"`      // that its processes use, with the page cache where a memory controller counts
	CPUSeconds       float64      `json:"cpu_seconds"`       // CPU time of its processes since they were started
	PIDs             int          `json:"pids"`              // processes and threads
	ThrottledSeconds float64      `json:"throttled_seconds"` // that limit-cpu made them wait
	OOMKills         uint64       `json:"oom_kills"`         // processes that were killed for lack of memory, in all its starts
	Limits           *LimitStatus `json:"limits,omitempty"`  // of what runs

	Policy      []PolicyLine        `json:"policy,omitempty"`      // what bounds its ini (tyrant-policy), by key
	Confinement *vassal.Confinement `json:"confinement,omitempty"` // of what runs

	owner      owner
	generation *vassal.Generation // that runs, to ask for what it uses
}

// Vassals are all vassals by name with what they use, as root sees them.
func (e *Emperor) Vassals(ctx context.Context) []Status {
	all := e.known(func(*Status) bool { return true })
	e.measure(ctx, all)
	return all
}

// measure adds what is not the loop's to know: the router's counters and what
// the vassals use, both at the same time.
func (e *Emperor) measure(ctx context.Context, all []Status) {
	var counting sync.WaitGroup
	counting.Go(func() { e.addTraffic(ctx, all) })
	AddUsage(all)
	counting.Wait()
}

// statuses are all vassals by name, as the loop knows them, with the router's
// counters.
func (e *Emperor) statuses(ctx context.Context) []Status {
	all := e.known(func(*Status) bool { return true })
	e.addTraffic(ctx, all)
	return all
}

// known are those of the vassals that are wanted by name, as the loop knows them.
func (e *Emperor) known(wanted func(*Status) bool) []Status {
	answer := make(chan []Status, 1)
	e.call(func() {
		all := make([]Status, 0, len(e.vassals))
		for _, v := range e.vassals {
			if s := e.statusOf(v); wanted(&s) {
				all = append(all, s)
			}
		}
		answer <- all
	})
	var all []Status
	select {
	case all = <-answer:
	case <-e.stopped:
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Grown is how much a counter of a status grew. One that fell began anew.
func Grown[T uint64 | float64](before, now T) T {
	if now < before {
		return now
	}
	return now - before
}

// addTraffic adds the counters; a router that is being started again has none
// to tell, which must not keep anybody from seeing the states.
func (e *Emperor) addTraffic(ctx context.Context, all []Status) {
	e.addBridged(all)
	if e.Traffic == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	traffic, err := e.Traffic(ctx)
	if err != nil {
		e.Log.Debug("traffic", "err", err)
		return
	}
	for i := range all {
		t := traffic[all[i].Name]
		all[i].RxBytes += t.RxBytes
		all[i].TxBytes += t.TxBytes
		for reason, n := range t.Drops {
			all[i].Drops[reason] += n
		}
	}
}

// statusOf is a vassal's status with what is published of it.
func (e *Emperor) statusOf(v *member) Status {
	s := v.status()
	if v.jail != nil {
		s.Published = e.publishedStatus(v.jail)
	}
	s.Policy = e.policyLines(v.file.owner)
	return s
}

// turns counts how often the vassal began anew, by a start or by itself.
func (v *member) turns() int { return v.launches + v.renewals + v.readings }

func (v *member) status() Status {
	s := Status{
		Name: v.name, File: v.file.path, State: v.state, UID: v.uid, Since: v.since, Error: v.err,
		Restarts: max(v.starts-1, 0), Warnings: v.warnings, owner: v.file.owner,
		Addresses: []netip.Addr{}, Drops: map[string]uint64{}, Attributes: v.attributes(), OOMKills: v.shortage.killed,
	}
	if v.gen != nil && (v.state == Running || v.state == Stopping) {
		s.PID = v.gen.PID
		s.Loyal = v.loyal(time.Since(v.gen.Started))
		s.Accepting = v.said.accepting
		s.generation, s.Limits, s.Confinement = v.gen, limitStatus(&v.limits), v.gen.Confinement()
	}
	s.Starts = v.launches
	if v.state == Backoff {
		s.Backoff = v.dates.delay.Seconds()
	}
	if v.begun != nil {
		s.PID = v.begun.PID
	}
	if v.gen != nil || v.begun != nil {
		s.Says = v.notices.says()
	}
	s.Deaths = v.backoff.deaths
	if v.state == Backoff {
		s.NextStart = v.due
	}
	s.LastEnd, s.LastEndAt = v.last.why, v.last.at
	if v.jail != nil {
		s.Addresses = append(s.Addresses, v.jail.Addresses()...)
		if v.unposted != "" {
			s.Warnings = append(slices.Clone(s.Warnings), "not published: "+v.unposted)
		}
		s.Warnings = append(slices.Clone(s.Warnings), v.jail.Troubles()...)
	}
	if v.dethroned {
		s.owner = owner{}
	}
	if v.config != nil {
		s.Command = v.config.Args()
	}
	if v.door != nil {
		s.Socket = v.door.address.String()
		if s.State == Sleeping && v.open != v.door {
			s.State = Starting // nobody can come yet
		}
	}
	if v.output != nil {
		s.Output = v.output.status()
	}
	v.describe(&s)
	return s
}
