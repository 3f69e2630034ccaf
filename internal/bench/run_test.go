package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/nettest"
)

var (
	mode    = flag.String("mode", "smoke", "smoke: a few seconds, no figures; quick: a round of the main lines; peers: one of idle peers; full: everything")
	rounds  = flag.Int("rounds", 5, "rounds of a full run")
	program = flag.String("program", "", "the fiefdom that is measured (default: built for the run)")
	outDir  = flag.String("out", "", "the folder for results.json and results.svg")
	wait    = flag.Duration("wait", 10*time.Minute, "how long to wait, in all, for others on the machine to finish")
	note    = flag.String("machine", "", "what the report says about the machine, besides what it knows")
)

// plan is how much of it is done.
type plan struct {
	rounds     int
	span       time.Duration // of a measurement; iperf3 counts in seconds
	tcp, uwsgi bool
	families   int // that are measured on every line
	jails      int // of a start
	rules      []int
	peers      []int
}

var plans = map[string]plan{
	"smoke": {rounds: 1, span: 100 * time.Millisecond, families: 1, jails: 3},
	"quick": {rounds: 1, span: time.Second, tcp: true, uwsgi: true, families: 1, jails: 20, rules: []int{1000}, peers: []int{100}},
	"peers": {rounds: 1, span: time.Second, families: 1, jails: 3, peers: []int{10, 100, 1000}},
	"full": {
		span: 2 * time.Second, tcp: true, uwsgi: true, families: 2, jails: 200,
		rules: []int{10, 100, 1000, 10000}, peers: []int{10, 100, 1000},
	},
}

// interrupted is done when the user has had enough.
var interrupted context.Context

func TestSideBySide(t *testing.T) {
	nettest.Root(t)
	p, ok := plans[*mode]
	if !ok {
		t.Fatalf("unknown mode %q", *mode)
	}
	if p.rounds == 0 {
		p.rounds = *rounds
	}
	if *program == "" {
		*program = filepath.Join(t.TempDir(), "fiefdom")
		if out, err := nettest.GoTool(t.Context(), "build", "-o", *program, "fiefdom/cmd/fiefdom").CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	r := newReport(p)
	// After an interrupt the cleanups still have to run.
	var stop context.CancelFunc
	interrupted, stop = signal.NotifyContext(t.Context(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	t.Run("paths", func(t *testing.T) { paths(t, p, r) })
	if interrupted.Err() != nil {
		return
	}
	t.Run("scale", func(t *testing.T) { scale(t, p, r) })
	if interrupted.Err() != nil {
		return
	}
	t.Run("starts", func(t *testing.T) { starts(t, p, r) })
	if *mode == "smoke" {
		for _, id := range []string{"udp", "p50", "starts"} {
			if v := r.Values[id][sysUs]; len(v) != 1 || v[0] <= 0 {
				t.Errorf("%s: measured %v", id, v)
			}
		}
		return
	}
	r.print(os.Stdout)
	if *outDir != "" {
		if err := r.save(*outDir); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\nresults.json and results.svg are in %s\n", *outDir)
	}
}

// job is a measurement of a system; it returns its values by line.
type job func(t *testing.T, s *system, family int) (map[string]float64, error)

func stream(id string, from, to func(*system) place, streams int, span time.Duration) job {
	return func(t *testing.T, s *system, family int) (map[string]float64, error) {
		gbps, cpu, err := tcp(t, from(s), to(s), family, streams, span, false)
		v := map[string]float64{id: gbps}
		if id == "tcp1" {
			v["cpu"] = cpu
		}
		return v, err
	}
}

// answered is a stream towards the one who asked for it.
func answered(id string, from, to func(*system) place, span time.Duration) job {
	return func(t *testing.T, s *system, family int) (map[string]float64, error) {
		gbps, _, err := tcp(t, from(s), to(s), family, 1, span, true)
		return map[string]float64{id: gbps}, err
	}
}

func datagrams(span time.Duration) job {
	return func(t *testing.T, s *system, family int) (map[string]float64, error) {
		kpps, err := udp(t, s.one, s.two, family, span)
		return map[string]float64{"udp": kpps}, err
	}
}

func trips(span time.Duration) job {
	return func(t *testing.T, s *system, family int) (map[string]float64, error) {
		h, err := rtt(t, s.one, s.two, family, span)
		return map[string]float64{"p50": h.P50, "p99": h.P99}, err
	}
}

// measure does one job with each of the systems in turn, and keeps the values.
func (r *report) measure(t *testing.T, do job, family int, prefix string, systems []*system) {
	t.Helper()
	r.await(interrupted)
	for _, s := range systems {
		if family == 1 && !s.six {
			continue
		}
		if interrupted.Err() != nil {
			t.Fatal("interrupted")
		}
		if s.ready != nil {
			if err := s.ready(t); err != nil {
				t.Fatal(err)
			}
		}
		values, err := do(t, s, family)
		if err != nil {
			t.Logf("no value from %s: %v", s.name, err)
		}
		for id, v := range values {
			if family == 1 {
				id += "-6"
			}
			if err != nil {
				v = 0
			}
			r.add(prefix+id, s.name, v)
		}
	}
}

// again is a system under another name.
func (s *system) again(name string) *system {
	other := *s
	other.name = name
	return &other
}

// paths measures the ways of a packet.
func paths(t *testing.T, p plan, r *report) {
	kernel := veth(t)
	all := []*system{kernel}
	if p.uwsgi {
		all = append(all, layUWSGI(t).pair(t))
	}
	direct := lay(t, settings{})
	direct.start(t)
	us := direct.pair(t, sysUs)
	all = append(all, us)
	among := all // vassals among each other
	if *mode != "smoke" {
		among = slices.Clip(among)
		for _, v := range variants {
			o := lay(t, settings{more: v.setting})
			o.start(t)
			among = append(among, o.pair(t, v.system))
		}
	}
	all = append(slices.Clip(all), kernel.again(sysAgain))
	among = append(among, kernel.again(sysAgain))

	one := func(s *system) place { return s.one }
	two := func(s *system) place { return s.two }
	host := func(s *system) place { return s.host }
	inet := func(s *system) place { return s.net }
	for round := range p.rounds {
		r.round(round)
		for family := range p.families {
			if p.tcp {
				r.measure(t, stream("tcp1", one, two, 1, p.span), family, "", among)
				r.measure(t, stream("tcp4", one, two, 4, p.span), family, "", among)
				r.measure(t, stream("h2v", host, one, 1, p.span), family, "", all)
				r.measure(t, stream("v2h", one, host, 1, p.span), family, "", all)
				r.measure(t, stream("v2i", one, inet, 1, p.span), family, "", all)
				r.measure(t, answered("i2v", one, inet, p.span), family, "", all)
			}
			r.measure(t, datagrams(p.span), family, "", among)
			r.measure(t, trips(p.span/2), family, "", among)
		}
	}
}

// scale measures what rules and idle peers cost, and what the peers take.
func scale(t *testing.T, p plan, r *report) {
	if len(p.rules)+len(p.peers) == 0 {
		return
	}
	kernel := veth(t)
	systems := []*system{kernel}
	begin := func(name string, s settings, peers int) {
		o := lay(t, s)
		o.start(t)
		pair := o.pair(t, name)
		if peers > 0 {
			before := o.rss(t)
			o.drop(t, peers)
			o.await(t, peers+2)
			time.Sleep(5 * time.Second) // idle: the router has given back what taking them over had cost
			r.add("memory", name, (o.rss(t)-before)/float64(peers))
		}
		systems = append(systems, pair)
	}
	begin(sysUs, settings{}, 0)
	for _, n := range p.rules {
		begin(fmt.Sprintf("%d rules", n), settings{rules: n}, 0)
	}
	for _, n := range p.peers {
		begin(fmt.Sprintf("%d peers", n), settings{}, n)
	}
	systems = append(systems, kernel.again(sysAgain))
	for round := range p.rounds {
		r.round(round)
		r.measure(t, datagrams(p.span), 0, "scale-", systems)
		r.measure(t, trips(p.span/2), 0, "scale-", systems)
	}
}

// starts measures how long emperors take to have many vassals running.
func starts(t *testing.T, p plan, r *report) {
	for round := range p.rounds {
		if interrupted.Err() != nil {
			t.Fatal("interrupted")
		}
		r.round(round)
		r.await(interrupted)
		if p.uwsgi {
			t.Run("uwsgi", func(t *testing.T) {
				u := layUWSGI(t)
				u.drop(t, p.jails)
				began := time.Now()
				u.start(t)
				u.await(t, p.jails)
				r.add("starts", sysUWSGI, float64(p.jails)/time.Since(began).Seconds())
			})
		}
		t.Run("us", func(t *testing.T) {
			o := lay(t, settings{})
			o.drop(t, p.jails)
			began := time.Now()
			o.start(t)
			o.await(t, p.jails)
			r.add("starts", sysUs, float64(p.jails)/time.Since(began).Seconds())
		})
	}
}
