package tuntap

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/firewall"
	"fiefdom/internal/nettest"
)

// four gives a router four shards.
func four(r *Router) {
	if err := r.Threads(4); err != nil {
		panic(err)
	}
}

// Every other test must hold for more than one shard, too.
func TestWithFourThreads(t *testing.T) {
	if *threads != 1 || flag.Lookup("test.fuzz").Value.String() != "" {
		t.Skip("it is one of those runs")
	}
	args := []string{"-threads=4", "-test.timeout=8m"}
	for _, name := range []string{"test.run", "test.skip", "test.v", "test.short"} {
		if v := flag.Lookup(name).Value.String(); v != "" {
			args = append(args, "-"+name+"="+v)
		}
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], args...).CombinedOutput()
	if err != nil {
		t.Errorf("with four threads: %v\n%s", err, out)
	}
}

func TestThreadsAreBounded(t *testing.T) {
	nettest.NoLeaks(t)
	for n, want := range map[int]int{-1: 0, 0: 0, 1: 1, 3: 3, MaxThreads: MaxThreads, MaxThreads + 1: 0} {
		r, err := New(nil, Events{}, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		err = r.Threads(n)
		if (err == nil) != (want > 0) || len(r.shards) != max(1, want) {
			t.Errorf("%d threads: %d shards, %v", n, len(r.shards), err)
		}
		if err := r.free(); err != nil {
			t.Error(err)
		}
	}
}

func TestDevicesAreSpread(t *testing.T) {
	w := newWorld(t, native(), four)
	count := func() (n []int) {
		_ = w.r.shards[0].mail.do(func() error {
			for _, s := range w.r.shards {
				n = append(n, s.devices)
			}
			return nil
		})
		return n
	}
	var lives []*Lifeline
	for range 8 {
		_, life := w.handOver(Handover{Vassal: "blog"})
		lives = append(lives, life)
	}
	if got := fmt.Sprint(count()); got != "[3 2 2 2]" { // the first reads the host's as well
		t.Errorf("devices by shard: %v", got)
	}
	for _, life := range lives {
		if err := life.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(count()); got != "[1 0 0 0]" {
		t.Errorf("devices by shard, after all have gone: %v", got)
	}
}

// A descriptor is closed only when every shard has turned to something else.
func TestDeviceIsClosedAfterATurnOfAllShards(t *testing.T) {
	w := newWorld(t, native(), four)
	for _, busy := range w.r.shards[1:] {
		end, life := w.handOver(Handover{Vassal: "blog", Registered: []netip.Addr{blog}})
		began, goOn := make(chan struct{}), make(chan struct{})
		busy.mail.post(func() { close(began); <-goOn })
		<-began
		if err := life.Close(); err != nil {
			t.Fatal(err)
		}
		for _, s := range w.r.shards {
			if s != busy {
				w.on(s, func() {})
			}
		}
		if !end.Empty() {
			t.Error("the device was closed while a shard was at work")
		}
		close(goOn)
		if _, err := end.Read(5 * time.Second); !errors.Is(err, io.EOF) {
			t.Errorf("the device was not closed afterwards: %v", err)
		}
	}
}

func TestGateLetsItsRateThrough(t *testing.T) {
	g := new(gate)
	const second = int64(1e9)
	through := func(now int64) (n int) {
		for range 1000 {
			if g.take(now, logRate, logRate) {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		now  int64
		want int
	}{{second, 20}, {second, 0}, {second + second/4, 5}, {100 * second, 20}} {
		if got := through(c.now); got != c.want {
			t.Errorf("at %d: %d; want %d", c.now, got, c.want)
		}
	}
}

func TestDirectWayAllocatesNothing(t *testing.T) {
	cfg := isolated()
	cfg.Out = []firewall.Rule{{Action: firewall.Allow, Src: single(blog), Dst: single(shop)}}
	w := newWorld(t, cfg)
	w.vassal("blog", blog)
	end := w.vassal("shop", shop)
	p := w.holder(blog)
	if *threads > 1 && p.shard == w.holder(shop).shard {
		t.Error("they are on one shard")
	}
	b := append(make([]byte, room), udp(blog, shop, 53)...)
	w.on(p.shard, func() { p.shard.fromPeer(p, b) }) // makes what is made when first needed
	const count = 50
	var allocs float64
	w.on(p.shard, func() {
		allocs = testing.AllocsPerRun(count, func() { p.shard.fromPeer(p, b) })
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	for range count + 2 {
		end.Receive(t)
	}
}

func TestShardThatCannotGoOnEndsTheRouter(t *testing.T) {
	nettest.NoLeaks(t)
	r, err := New(slog.New(slog.DiscardHandler), Events{}, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	four(r)
	s := r.shards[2]
	s.mail.post(func() {
		unix.Close(s.poll.ep)
		s.poll.ep = -1
	})
	if err := r.Run(t.Context()); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "wait for packets") {
		t.Errorf("the router ended with %v", err)
	}
}
