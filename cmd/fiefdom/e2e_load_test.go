package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/nettest"
)

// askedTime is how long a test goes on: what the environment asks for, else what
// is usual.
func askedTime(t *testing.T, variable string, usual time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 10*time.Second {
		t.Fatalf("%s is %q; want a duration of 10s or more, as 1h", variable, text)
	}
	return d
}

// All kinds of traffic at full speed, while vassals come, change, die and go and
// the router is killed now and then: no stream breaks, no bit is harmed, and in
// the end nothing is held that was not held before.
func TestMixedLoad(t *testing.T) {
	total := askedTime(t, "FIEFDOM_LOAD_TIME", 20*time.Second)
	r := newRealm(t, openNetwork, map[string]string{"blog": agentIni, "shop": agentIni, "mail": agentIni, "loud": agentIni})
	at := r.places("blog", "shop", "mail", "loud")
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{begin: time.Now()}
	stop := func() { cancel(); tr.wg.Wait() }
	t.Cleanup(stop)
	tr.mixed(t, ctx, at)

	seed := rand.Uint64()
	t.Logf("seed of the changes: %d", seed)
	c := &court{realm: r, t: t, hosts: at, tr: tr, rng: rand.New(rand.NewPCG(seed, 0)), guests: map[string]*guest{}}
	c.reign(total / 8) // the first of everything is behind after that
	c.dismiss()
	before := r.settled(t, tr, nil)
	c.killEvery = min(5*time.Minute, total/4)
	enough := c.watch(ctx, total/200)
	c.reign(total)
	samples := enough()
	c.dismiss()
	after := r.settled(t, tr, &before)
	stop()

	tr.verify(t)
	if c.corrupt > 0 || c.records == 0 {
		t.Errorf("guests: %d records came, %d corrupt", c.records, c.corrupt)
	}
	for _, line := range unequal(before, after) {
		t.Error(line)
	}
	checkMemory(t, samples, total)
	t.Logf("%d changes: %v; %d routers killed\n%s\n%s", c.changes, c.kinds, c.kills, tr.summary(), loadTable(append(samples, after)))
}

// mixed starts the flows that have to go on.
func (tr *traffic) mixed(t *testing.T, ctx context.Context, at map[string]place) {
	t.Helper()
	blog, shop, mail, loud, host, inet := at["blog"], at["shop"], at["mail"], at["loud"], at["host"], at["inet"]
	tcp := func(from, to place, six, reverse bool) func() (*flow, error) {
		return func() (*flow, error) { return tr.tcp(ctx, from, to, six, reverse) }
	}
	udp := func(from, to place, six bool, size int, pause time.Duration) func() (*flow, error) {
		return func() (*flow, error) { return tr.udp(ctx, from, to, six, size, pause) }
	}
	ping := func(from, to place, six bool, size int) func() (*flow, error) {
		return func() (*flow, error) { return tr.ping(ctx, from, to, six, size) }
	}
	tr.steady(t,
		tcp(blog, shop, false, false), tcp(shop, mail, true, false), tcp(mail, blog, false, false),
		tcp(mail, inet, false, false), tcp(blog, inet, true, false),
		tcp(inet, blog, false, true), tcp(inet, shop, true, true),
		tcp(host, shop, false, false), tcp(host, mail, true, false), tcp(shop, host, false, true),
		udp(loud, shop, false, 64, 0), udp(mail, blog, true, 64, 50*time.Microsecond), udp(shop, inet, false, 64, 50*time.Microsecond),
		udp(shop, mail, false, 20000, time.Millisecond), udp(blog, mail, true, 20000, time.Millisecond), udp(mail, inet, true, 9000, time.Millisecond),
		ping(shop, blog, false, 56), ping(blog, mail, true, 1000), ping(mail, inet, false, 3000), ping(shop, inet, true, 56),
	)
}

// summary is one line a flow.
func (tr *traffic) summary() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var b strings.Builder
	for _, f := range tr.flows {
		fmt.Fprintf(&b, "%28s: %9d of %9d records came, %6d MB", f.name, f.got.Load(), f.sent.Load(), f.bytes.Load()>>20)
		if worst := time.Duration(f.worst.Load()); worst > 0 {
			fmt.Fprintf(&b, ", longest gap %v", ms(worst))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// settled waits until the realm holds as much as in a sample, or, without one,
// as a moment before.
func (r *realm) settled(t *testing.T, tr *traffic, want *sample) sample {
	t.Helper()
	deadline := time.Now().Add(patience)
	for like := want; ; {
		now := r.wholeSample(t, time.Since(tr.begin))
		if like != nil && len(unequal(*like, now)) == 0 || time.Now().After(deadline) {
			return now
		}
		if want == nil {
			like = &now
		}
	}
}

// checkMemory compares what was used early and late. A router is compared with
// itself: the last one, which lived for the second half.
func checkMemory(t *testing.T, samples []sample, total time.Duration) {
	t.Helper()
	if len(samples) == 0 {
		t.Fatal("nobody answered for a sample")
	}
	last := samples[len(samples)-1].routerPID
	rows := map[string][]int{}
	for _, s := range samples {
		rows["emperor"] = append(rows["emperor"], s.memory["emperor"])
		if s.routerPID == last {
			rows["router"] = append(rows["router"], s.memory["router"])
		}
	}
	slack := 4 << 10 // KiB
	if total < 5*time.Minute {
		slack = 16 << 10 // the heaps still grow to what the load needs
	}
	for name, row := range rows {
		if len(row) < 8 {
			t.Errorf("%s: only %d samples", name, len(row))
			continue
		}
		second, last := trend(row)
		t.Logf("%s: %d KiB of memory in the second quarter of its time, %d KiB in the last", name, second, last)
		if limit := second + second/10 + slack; last > limit {
			t.Errorf("%s: memory grew from %d to %d KiB, want %d at most", name, second, last, limit)
		}
	}
}

// guest is a vassal that comes and goes, and the traffic with it.
type guest struct {
	at   place
	tr   *traffic
	stop func()
}

// court makes a change a second and takes samples.
type court struct {
	*realm
	t         *testing.T
	hosts     map[string]place
	tr        *traffic
	rng       *rand.Rand
	guests    map[string]*guest
	killEvery time.Duration // 0: never
	killed    time.Time

	changes, kills, versions int
	kinds                    map[string]int
	records, corrupt         int64
}

const (
	guests      = 6
	changeEvery = time.Second
)

// reign makes changes for some time. Routers are killed in its first half only,
// so that the second shows whether one router grows.
func (c *court) reign(length time.Duration) {
	c.t.Helper()
	began := time.Now()
	c.killed = began
	tick := time.NewTicker(changeEvery)
	defer tick.Stop()
	for time.Since(began) < length {
		c.change()
		if c.killEvery > 0 && time.Since(c.killed) > c.killEvery && time.Since(began) < length/2 {
			c.kill(c.routerPID())
			c.kills++
			c.killed = time.Now()
		}
		<-tick.C
	}
}

// watch takes a sample each time that an interval is over, until it is enough.
func (c *court) watch(ctx context.Context, interval time.Duration) (enough func() []sample) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan []sample, 1)
	go func() {
		var samples []sample
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				done <- samples
				return
			}
			// A router that was just killed tells nothing; the next sample will.
			if s, err := c.sample(ctx, time.Since(c.tr.begin)); err == nil {
				samples = append(samples, s)
			}
		}
	}()
	return func() []sample { cancel(); return <-done }
}

// change lets one guest come, change or go, or kills an app.
func (c *court) change() {
	c.t.Helper()
	name := fmt.Sprintf("guest%d", c.rng.IntN(guests))
	g := c.guests[name]
	kind := "come"
	if g != nil {
		kind = []string{"go", "go while busy", "edit", "restart", "kill its app", "kill a host's app"}[c.rng.IntN(6)]
	}
	switch kind {
	case "come":
		c.drop(name, c.guestIni())
		c.receive(name, 0)
	case "go":
		c.leave(name)
		c.remove(name)
	case "go while busy":
		c.remove(name)
		c.gone(name)
		c.leave(name)
	case "edit":
		pid := c.awaitState(name, emperor.Running).PID // its app may have been killed a moment ago
		c.drop(name, c.guestIni())
		c.leave(name)
		c.receive(name, pid)
	case "restart":
		c.leave(name)
		if _, err := c.api.Do(c.t.Context(), name, "restart"); err != nil {
			c.t.Errorf("restart %s: %v", name, err)
		}
		c.receive(name, 0)
	case "kill its app":
		c.killApp(name)
	case "kill a host's app":
		c.killApp([]string{"blog", "shop", "mail"}[c.rng.IntN(3)])
	}
	c.changes++
	if c.kinds == nil {
		c.kinds = map[string]int{}
	}
	c.kinds[kind]++
}

// guestIni has rules of its own, others each time, none of which matters to the traffic.
func (c *court) guestIni() string {
	c.versions++
	var b strings.Builder
	fmt.Fprintf(&b, "[uwsgi]\ncommand = /bin/sleep infinity\nenv = VERSION=%d\n", c.versions) // other rules alone would be no other start
	b.WriteString("tuntap-device = eth0\ntuntap-device-address = auto\n")
	for i := range 1 + c.versions%20 {
		fmt.Fprintf(&b, "tuntap-device-rule = out 0.0.0.0 203.0.%d.%d/32 deny\n", c.versions%256, i)
	}
	return b.String()
}

// receive waits for a guest, with another app than that of a pid, and starts
// traffic with it.
func (c *court) receive(name string, notPID int) {
	c.t.Helper()
	s := c.await(name, "runs", func(s emperor.Status) bool {
		return s.State == emperor.Running && s.PID != notPID && len(s.Addresses) == 2
	})
	at, err := c.placeOf(s)
	if err != nil {
		return // its app was just killed
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	g := &guest{at: at, tr: &traffic{begin: c.tr.begin}}
	g.stop = func() { cancel(); g.tr.wg.Wait(); g.at.ns.Close() }
	c.guests[name] = g
	host := c.hosts[[]string{"blog", "shop", "mail", "inet"}[c.rng.IntN(4)]]
	if six := c.rng.IntN(2) == 0; c.rng.IntN(2) == 0 {
		_, err = g.tr.tcp(ctx, at, host, six, false)
	} else {
		_, err = g.tr.tcp(ctx, host, at, six, true)
	}
	if err == nil {
		_, err = g.tr.udp(ctx, at, c.hosts["blog"], false, 64+c.rng.IntN(8000), time.Millisecond)
	}
	if err != nil {
		c.t.Errorf("traffic with %s: %v", name, err)
	}
}

// leave ends the traffic with a guest. That a stream with somebody who left
// broke is no error; a harmed record is.
func (c *court) leave(name string) {
	g := c.guests[name]
	if g == nil {
		return
	}
	delete(c.guests, name)
	g.stop()
	for _, f := range g.tr.flows {
		c.records += f.got.Load()
		c.corrupt += f.corrupt.Load()
	}
}

func (c *court) gone(name string) {
	c.t.Helper()
	c.await(name, "is gone", func(s emperor.Status) bool { return s.Name == "" })
}

// killApp kills an app; its jail, and with it all streams, stay.
func (c *court) killApp(name string) {
	c.t.Helper()
	s := c.ps(name)
	if s.PID == 0 {
		return // it was killed a moment ago
	}
	if out, err := c.Try(c.t, "kill", "-KILL", fmt.Sprint(s.PID)); err != nil && !strings.Contains(out, "No such process") {
		c.t.Fatalf("%v: %s", err, out)
	}
}

// dismiss lets all guests go and waits until everybody else runs.
func (c *court) dismiss() {
	c.t.Helper()
	for i := range guests {
		name := fmt.Sprintf("guest%d", i)
		c.leave(name)
		if err := os.Remove(c.Path(iniPath(name))); err != nil && !errors.Is(err, syscall.ENOENT) {
			c.t.Fatal(err)
		}
		c.gone(name)
	}
	nettest.Eventually(c.t, 3*patience, "the others run", func() bool {
		all, err := c.api.List(c.t.Context())
		return err == nil && allRun(all)
	})
}
